"""The winner, serving: its server and its baseline's under load, side by side; and a watch over one that runs."""
