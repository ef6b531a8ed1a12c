"""The study on trial: its statements, judged."""
