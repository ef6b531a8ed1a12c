"""Measure what each quantization of a causal language model buys and what it costs.

One folder a stage, in the order in which the data flows, each run as ``python -m workflow.tradeoff.<stage>``:
fetch, prepare, measure, evaluate, summarize, decide, claims, report. Below them lie ``engines`` (what runs a model),
``run`` (what runs a stage, and where), and the ground that all stand on: ``variants``, ``errors``, ``files``, and what
several rooms need, ``words``, ``columns``, ``stats``.
"""
