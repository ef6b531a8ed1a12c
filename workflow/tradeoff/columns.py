"""The columns of tables/summary.csv, in order, each explained to a person who deploys models.

The report's page "How to read these numbers" is made from these words.
"""

INTERVAL = "95% interval"


def _with_interval(name: str, text: str) -> dict[str, str]:
    return {name: text, f"{name}_low": f"Lower end of its {INTERVAL}.", f"{name}_high": f"Upper end of its {INTERVAL}."}


GROUPS: dict[str, dict[str, str]] = {
    "The cell": {
        "study": "Name of the study: the folder under results/.",
        "model": "The checkpoint.",
        "variant": "The way it was run: engine, precision, and what is special about its cache.",
        "deployable": "yes, or no for a reference: a way to run a model that nobody can serve. It is shown for "
        "comparison and never recommended.",
        "baseline": "The variant that this one is compared with. A ratio is never taken against another model.",
        "status": "ok, or why there is no figure: out_of_memory, unsupported, hung, error (it could not run); "
        "mismatched (speed, quality and baseline are not of the same bytes); not_quantized, not_cached, fell_back, "
        "diverged (it ran, but not as its name says, so no speed is claimed); disturbed (others took the machine while "
        "it was timed, again and again: no speed).",
        "accuracy_status": "The same for perplexity and text; not_applicable for random weights.",
        "reason": "What stands behind a status that is not ok, or a ratio that is missing, in plain words.",
        "device": "cpu or cuda.",
        "threads": "CPU threads that really computed.",
        "parameters": "Parameters of the model.",
        "weights_from": "Of a model whose checkpoint is a GGUF file of quantized weights: what they lie in there. "
        "Every other precision was made from these, the baseline's too, so no change of accuracy here has in it what "
        "that file lost.",
        "size_class": "Small below 1e9 parameters, medium to 6e9, large above.",
    },
    "Speed": {
        **_with_interval(
            "decode_tokens_per_s",
            "Tokens a second while an answer is written, one user, the prompt already read. Median over fresh "
            "processes. The interval is over these processes: Student's t on their logarithms below 8 of them, a "
            "bootstrap from 8 on.",
        ),
        **_with_interval("ttft_ms", "Time to first token: how long a user waits before anything appears."),
        **_with_interval(
            "ttft_ratio",
            "Time to first token divided by the baseline's, paired as the speedup is. Above 1 is a longer wait.",
        ),
        **_with_interval("itl_p50_ms", "Inter-token latency, the usual pause between two tokens (median)."),
        **_with_interval("itl_p90_ms", "The pause that one token in ten exceeds."),
        **_with_interval("itl_p99_ms", "The pause that one token in a hundred exceeds: the stutter a user notices."),
        **_with_interval(
            "speedup",
            "Decode speed divided by the baseline's. Two processes took turns, a generation each, and the ratio is "
            "taken turn by turn, so a machine that drifts cancels out. Below 1 is slower. The interval is Student's t "
            "over pairs of processes, each by its median turn; it allows for stopping when it was narrow enough.",
        ),
        **_with_interval(
            "throughput_ratio",
            "The same of the whole answer: tokens a second with the time of its prompt, divided by the baseline's.",
        ),
        "baseline_tokens_per_s": "The baseline's own tokens a second in the processes that took turns with the cell's: "
        "what speedup compares with. Another figure than in the baseline's row, which was taken at another time.",
        "baseline_ttft_ms": "The baseline's time to first token in these processes, which ttft_ratio compares with.",
        "speed_verdict": "faster or slower when the whole interval of the speedup is on that side of 1; tie when it is "
        "within 10% of 1; else undecided.",
        "study_tokens_per_s": "Tokens a second by the protocol of the paper on trial: its short prompt, 10 new tokens, "
        "the whole generate call timed, reading the prompt included. New tokens divided by mean seconds.",
        "study_s_mean": "Mean seconds of such a call.",
        "study_s_median": "Median seconds of such a call: far below the mean where one call went astray.",
        "study_s_sd": "Standard deviation of these seconds, as the study gives it.",
        **_with_interval(
            "study_speedup",
            "Speedup by the paper's protocol. Where the baseline was not timed in turns by it, this is against the "
            "baseline's own cell, and drift of the machine between the two is in it: trust speedup first.",
        ),
        "half_width_pct": "Half the width of the speedup's interval (of the baseline: its speed's), in percent: how "
        "sharp the figure became within measure.budget_s.",
        "replicates": "Fresh processes of the cell that were timed.",
        "turns": "Timed generations of theirs that count, each beside one of the baseline's.",
        "retaken": "Timed generations that others disturbed and that were taken again, of both.",
        "pairing": "live: the processes of cell and baseline lived side by side and took turns; apart: one after the "
        "other, where both do not fit (the speed file says why); alone: the baseline's own cell.",
        "noisy": "true when half_width_pct was still above measure.precision when the time was over.",
        "harness_pct": "What our own timing adds to each token, in percent of the usual pause. Should be at most 1.",
        "drift_pct": "How much the machine's own speed moved during the cell, from a fixed calibration loop before "
        "each sample, the slowest and fastest tenth left out.",
    },
    "Energy": {
        "joules_per_token": "Energy of the whole card (NVML) or of the CPU's packages (RAPL) over a timed generation, "
        "the prompt included, a new token. Read off the hardware's counter; empty where there is none.",
        "watts": "The same a second.",
        "idle_watts": "What the counter shows while the process, with the model loaded, only waits.",
        "energy_source": "Which counter it is, or why nothing measures it here.",
    },
    "Memory": {
        "disk_mb": "Size of the files, in units of 1,000,000 bytes as everywhere here.",
        "bits_per_weight": "Mean bits of a weight that a step multiplies by, scales included; empty where the "
        "precision says it.",
        "cache_tokens": "Tokens that cache_mb is of.",
        "weight_mb": "Weights as they lie in memory, scales and other constants of quantization included.",
        "cache_mb": "Keys and values kept for the measured length; 0 without a cache. Grows with the text.",
        "memory_mb": "weight_mb + cache_mb: what the model itself needs, whatever the libraries around it take.",
        "memory_reduction_pct": "How much smaller weight_mb is than the baseline's.",
        "peak_mb": "Most memory that the whole process held while it wrote text, libraries included (memory_kind says "
        "how it is read). The figure a container's limit must exceed, with load_peak_mb.",
        "load_peak_mb": "The same while the model was loaded; often the higher of the two.",
        "before_load_mb": "What the process held before it loaded the model: the cost of the libraries.",
        "memory_kind": "What the peaks are: resident memory of the process, or the CUDA allocator's figure.",
    },
    "Accuracy": {
        "convention": "How the text was cut for these figures; conventions.csv has the others.",
        "eval_tokens": "Tokens that were scored.",
        "nll": "Negative log-likelihood: average surprise at the true next token, in nats. Lower is better.",
        "perplexity": "exp(nll): the model is as unsure as if it chose among so many words. Compare it only within one "
        "tokenizer and one convention.",
        **_with_interval(
            "delta_nll",
            "nll less the baseline's, on the same tokens, so that the text's own difficulty cancels out. The interval "
            "is over blocks of text: Student's t below 20 blocks, a block bootstrap from 20 on.",
        ),
        "degradation_pct": "Rise of the perplexity over the baseline's, in percent: exp(delta_nll) - 1.",
        "degradation_low_pct": f"Lower end of its {INTERVAL}.",
        "degradation_high_pct": f"Upper end of its {INTERVAL}. A limit on degradation is held against this end.",
        "quality_verdict": "worse or better when the whole interval of delta_nll is on that side of 0, else no "
        "detectable change.",
        "kl_mean": "KL divergence from the baseline's next-token distribution, nats a token: how far the variant's "
        "choices moved, even where perplexity did not. 0 is the same model.",
        "kl_p50": "The same for the median token.",
        "kl_p90": "The same for the token that one in ten exceeds.",
        "kl_p99": "The same for the token that one in a hundred exceeds.",
        "same_top_pct": "How often the variant's likeliest next token is also the baseline's.",
        "dp_rms": "Root mean square change in the probability of the true token.",
        "first_difference_median": "Greedy text against the baseline's: the position of the first token that differs, "
        "median over the prompts; empty where most texts are the same.",
        "same_text_pct": "Share of the prompts whose whole greedy text equals the baseline's.",
        "quality_score": "A rubric of 1 to 5 computed from the text itself: the mean of the next three. It tells text "
        "from loops and noise; it does not judge truth.",
        "coherence": "1 to 5: sentences of words, no loops.",
        "completeness": "1 to 5: long enough, and ended.",
        "relevance": "1 to 5: keeps to the prompt's words.",
    },
    "Proof": {
        "quantized_fraction": "Share of the weights of a step's matrices that are stored in the variant's own bits.",
        "bytes_per_token": "Bytes that one decoded token must read: weights once, and the cache.",
        "bandwidth_gb_per_s": "Memory bandwidth that was measured beside the cell, in one of its own processes, by "
        "reading a block larger than the caches: 1e9 bytes a second. Where others use the machine it differs from cell "
        "to cell, and mbu_pct with it.",
        "mbu_pct": "Model bandwidth utilization: bytes_per_token × decode_tokens_per_s in percent of "
        "bandwidth_gb_per_s. Near 100 no faster run is possible without fewer bytes.",
        "roofline_label": "What holds the cell back: bandwidth-bound (mbu_pct is 50 or more), below it launch-bound on "
        "a GPU and compute-bound on a CPU; whatever mbu_pct is, recompute-bound (no cache: the whole text is run again "
        "for each token) or fallback-bound (heavy nodes ran elsewhere).",
        "artifact": "First digits of the digest of the files that ran. The report's table of artifacts has it whole, "
        "with the folder whose manifest.json has the sha256 of each file.",
        "environment": "First digits of the digest of the environment that the cell ran in.",
    },
}

# beside these, where the config names several kinds of machine
OF_MACHINES = {
    "machine": "The kind of machine that the cell ran on. A ratio is never taken against another one.",
    "scored_on": "The kind on which accuracy was taken: the same bytes, maybe by other kernels. Empty where none was.",
}
COLUMNS: dict[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}

# digests, whose digits no reader of a CSV may take for a number
DIGESTS = dict.fromkeys(("artifact", "environment"), str)
