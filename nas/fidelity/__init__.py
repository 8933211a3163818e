"""Fidelity of a supernet: does inherited accuracy rank sub-networks as training each of them alone does?"""
