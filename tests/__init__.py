"""Tests: unit (milliseconds), dag (dry runs), e2e (a tiny model through every stage)."""
