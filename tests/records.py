"""Helpers for tests of readers."""


def frames_of(record):
    """(time, channel, row, column) of a reader's dataset, read."""
    return record.to_array().transpose("time", "variable", "row", "column").values


def run_names(record):
    """Names of the runs in order, each once."""
    return list(dict.fromkeys(record.run.values.tolist()))
