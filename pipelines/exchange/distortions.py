"""What lasting faults make of messages, at the source and on the way to one client. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from pipelines.events import SECOND_NS
from pipelines.exchange.faults import Fault
from pipelines.exchange.frames import Batch, Key

Part = tuple[bytes, Key]
"""An encoded message with its channel and symbol."""


def at_source(batch: Batch, windows: Iterable[Fault]) -> Batch | None:
    """What is published of a batch: without halted symbols, with a skewed clock.

    Injected messages, those of faults among them, are published as they are. Only ticks are
    skewed: a bar is of its minute, whatever a print's clock says.
    """
    if batch.times_ns is None:
        return batch
    for fault in windows:
        if fault.do == "halt":
            keep = [not fault.names(symbol) for _, symbol in batch.keys]
            if not any(keep):
                return None
            batch = batch.only(keep)
        elif fault.do == "skew":
            shift = int(fault.parameters["skew_s"] * SECOND_NS)
            times = [
                ns + shift if channel in ("trades", "quotes") and fault.names(symbol) else ns
                for ns, (channel, symbol) in zip(batch.times_ns or (), batch.keys, strict=True)
            ]
            batch = Batch(batch.messages, times_ns=times, keys=batch.keys)
    return batch


def on_the_way(
    parts: Sequence[Part], windows: Iterable[Fault], rng: Random
) -> tuple[list[bytes], list[bytes], float]:
    """What a client gets of the messages that it wants.

    Args:
        parts: The messages.
        windows: The faults that last and concern its feed.
        rng: Chooses.

    Returns:
        What it gets now, what it gets later, and how much later, wall seconds.
    """
    late: Fault | None = None
    for fault in sorted(windows, key=lambda f: f.do == "disorder"):
        if fault.do == "mute":
            parts = [part for part in parts if not fault.names(part[1][1])]
        elif fault.do == "duplicate":
            share = fault.parameters["share"]
            parts = [
                part
                for part in parts
                for _ in range(2 if fault.names(part[1][1]) and rng.random() < share else 1)
            ]
        elif fault.do == "disorder":
            parts = rng.sample(parts, len(parts))
        elif fault.do == "delay":
            late = fault
    if late is None:
        return [text for text, _ in parts], [], 0.0
    now = [text for text, key in parts if not late.names(key[1])]
    later = [text for text, key in parts if late.names(key[1])]
    return now, later, late.parameters["delay_s"]
