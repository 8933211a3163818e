"""A finished run of the tiny space, made once for the tests of finetuning."""
