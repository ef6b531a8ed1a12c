"""Measure what each quantization of a causal language model buys and what it costs.

One module per stage, each run as ``python -m workflow.tradeoff.<stage>``:
fetch, export, quantize, measure, evaluate, summarize, decide, report.
"""
