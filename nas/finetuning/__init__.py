"""Finetuning: members of the front, trained as they are deployed, under their own quantization policy."""
