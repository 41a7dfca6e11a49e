"""Predictions that exist, scored again: those of runs or any folder of label maps, under any protocol."""
