"""Signals: features and account in, answers out; the same bar asked twice gets the same answer.

The order in which an answer to (symbol, bar) is looked for: what was answered before, what was
published on ``market-signals``, and only then the model. The published signal is the truth: where
Spark did not wait for our answer and published HOLD ``unavailable``, the account follows that.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from pipelines.clock import wall_ns
from pipelines.errors import ModelError
from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from serve.asked import UnknownSymbol, check_fingerprint, check_row
from serve.market import Staleness
from serve.mirror import Mirror
from serve.policy import ACTIONS, Choice, Decision, Policy
from serve.portfolio import Portfolio
from serve.updates import Update

log = logging.getLogger(__name__)

MAX_ANSWERS = 20_000
HOLD = 0
SPREAD = 10
"""Place of ``spread_bps`` among the features."""
Answer = dict[str, Any]


class SignalService:
    """Answers for one replica.

    Args:
        mirror: What is known of the market.
        policy: What decides.
        portfolio: The accounts.
        spec: The features that are served.
        staleness: When an input is too old.
        wall: The wall clock.
        max_answers: Answers kept.
    """

    def __init__(
        self,
        mirror: Mirror,
        policy: Policy,
        *,
        spec: FeatureSpec = FEATURE_SPEC,
        portfolio: Portfolio | None = None,
        staleness: Staleness | None = None,
        wall: Callable[[], int] = wall_ns,
        max_answers: int = MAX_ANSWERS,
    ) -> None:
        self._mirror = mirror
        self._policy = policy
        self._portfolio = portfolio or Portfolio()
        self._spec, self._fingerprint = spec, spec.fingerprint
        self._staleness = staleness or Staleness()
        self._wall = wall
        self._max = max_answers
        self._answers: OrderedDict[tuple[str, str, int], Answer] = OrderedDict()
        mirror.listen(self._published)

    # ---- questions

    def latest(self, symbol: str) -> Answer:
        """The signal of the symbol's latest closed bar, aged to now.

        Raises:
            UnknownSymbol: Nobody follows it.
        """
        if symbol not in self._mirror.symbols:
            raise UnknownSymbol(symbol)
        choice = self._policy.choice
        features = self._mirror.data("features", symbol)
        update = self._mirror.latest("features", symbol)
        if choice is None or features is None or update is None:
            why = "warming_up" if self._mirror.synced and choice is not None else "unavailable"
            return self._hold(symbol, choice, reason=why)
        bar_ns = parse_time_ns(update.event_time)
        answer = self._known(choice, symbol, bar_ns)
        if answer is None:
            row = [features["values"].get(name) for name in self._spec.names]
            reason = "gap" if features.get("gap") else None
            if features.get("fingerprint", self._fingerprint) != self._fingerprint:
                reason = "unavailable"  # the stream computes others, until it was restarted too
            fractions = self._portfolio.fractions(choice.model.key, symbol)
            answer = self._decide(choice, [symbol], [row], [fractions], [reason], [bar_ns])[0]
        return self._aged(answer, bar_ns, choice)

    def given(
        self,
        symbol: str,
        features: Sequence[float],
        *,
        position_fraction: float | None = None,
        cash_fraction: float | None = None,
    ) -> Answer:
        """The signal on given features; keeps nothing.

        Raises:
            WrongFeatures: They are not as many as are served.
        """
        check_row(self._spec, features, field="features")
        choice = self._policy.choice
        if choice is None:
            return self._hold(symbol, choice, reason="unavailable")
        if position_fraction is None:
            position_fraction = 1.0 - cash_fraction if cash_fraction is not None else 0.0
        cash = 1.0 - position_fraction if cash_fraction is None else cash_fraction
        fractions = [(position_fraction, cash)]
        return self._decide(choice, [symbol], [features], fractions, [None], [None])[0]

    def batch(
        self,
        symbols: Sequence[str],
        features: Sequence[Sequence[float | None] | None],
        bars: Sequence[Mapping[str, Any] | None] | None = None,
        reasons: Sequence[str | None] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> list[Answer]:
        """One signal per symbol, in order; with bars, each (symbol, bar) is decided once.

        Args:
            symbols: The symbols.
            features: Of each, in the order of the specification.
            bars: The closed bar of each.
            reasons: Why one must not be decided on.
            fingerprint: Of the features, where the caller knows it.

        Raises:
            OtherFeatures: They are not those that are served.
            WrongFeatures: A row has not as many as are served.
            ValueError: The lists differ in length, or a bar's time is none.
        """
        check_fingerprint(self._spec, fingerprint)
        for i, row in enumerate(features):
            check_row(self._spec, row, field=f"features.{i}")
        n = len(symbols)
        bars = bars if bars is not None else [None] * n
        reasons = reasons if reasons is not None else [None] * n
        if not n == len(features) == len(bars) == len(reasons):
            raise ValueError("symbols, features, bars and reasons differ in length")
        choice = self._policy.choice
        if choice is None:
            return [
                self._hold(s, None, reason="unavailable", bar=b)
                for s, b in zip(symbols, bars, strict=True)
            ]
        answers: list[Answer | None] = [None] * n
        # Bars of one symbol fill in order of time, whatever order they are asked in.
        starts = [parse_time_ns(bar["event_time"]) if bar else None for bar in bars]
        rounds: list[list[int]] = []
        depth: dict[str, int] = {}
        for i in sorted(range(n), key=lambda i: starts[i] or 0):
            level = depth.get(symbols[i], 0) if starts[i] is not None else 0
            depth[symbols[i]] = level + 1
            if level == len(rounds):
                rounds.append([])
            rounds[level].append(i)
        for todo in rounds:
            self._round(choice, todo, symbols, features, bars, starts, reasons, answers)
        return [answer for answer in answers if answer is not None]

    # ---- deciding

    def _round(
        self,
        choice: Choice,
        todo: Sequence[int],
        symbols: Sequence[str],
        features: Sequence[Sequence[float | None] | None],
        bars: Sequence[Mapping[str, Any] | None],
        starts: Sequence[int | None],
        reasons: Sequence[str | None],
        answers: list[Answer | None],
    ) -> None:
        asked: list[int] = []
        fractions: list[tuple[float, float]] = []
        whys: list[str | None] = []
        for i in todo:
            bar, bar_ns = bars[i], starts[i]
            if bar is None or bar_ns is None:
                asked.append(i)
                fractions.append((0.0, 1.0))
                whys.append(reasons[i])
                continue
            known = self._known(choice, symbols[i], bar_ns)
            if known is not None:
                answers[i] = known
                continue
            row = features[i]
            asked.append(i)
            fractions.append(
                self._portfolio.at_bar(
                    choice.model.key,
                    symbols[i],
                    bar_ns=bar_ns,
                    open_usd=float(bar["open"]),
                    close_usd=float(bar["close"]),
                    spread_bps=(row[SPREAD] or 0.0) if row is not None else 0.0,
                )
            )
            whys.append(reasons[i] or self._stale(bar_ns))
        decided = self._decide(
            choice,
            [symbols[i] for i in asked],
            [features[i] for i in asked],
            fractions,
            whys,
            [starts[i] for i in asked],
        )
        for i, answer in zip(asked, decided, strict=True):
            answers[i] = answer
            bar_ns = starts[i]
            if bar_ns is not None:
                key = choice.model.key
                decided_on = {"action": answer["action_id"], "reason": answer["reason"]}
                self._portfolio.decide(key, symbols[i], bar_ns=bar_ns, **decided_on)
                answer.update(self._portfolio.report(key, symbols[i]))
                self._remember(key, symbols[i], bar_ns, answer)

    def _decide(
        self,
        choice: Choice,
        symbols: Sequence[str],
        features: Sequence[Sequence[float | None] | None],
        fractions: Sequence[tuple[float, float]],
        reasons: Sequence[str | None],
        starts: Sequence[int | None],
    ) -> list[Answer]:
        whys: list[str | None] = []
        rows: list[list[float]] = []
        for row, reason, (position, cash) in zip(features, reasons, fractions, strict=True):
            why = reason
            if why is None and (row is None or any(v is None for v in row)):
                why = "warming_up"
            whys.append(why)
            if why is None and row is not None:
                rows.append([*(float(v) for v in row if v is not None), position, cash])
        decisions: Sequence[Decision] = []
        if rows:
            try:
                decisions = choice.model.decide(np.asarray(rows, dtype=np.float32))
            except ModelError:
                whys = [why or "unavailable" for why in whys]
        given = iter(decisions)
        wall = self._wall()
        return [
            self._answer(
                symbols[i],
                choice,
                decision=None if why else next(given),
                reason=why or choice.reason,
                fractions=fractions[i],
                bar_ns=starts[i],
                wall=wall,
            )
            for i, why in enumerate(whys)
        ]

    def _answer(
        self,
        symbol: str,
        choice: Choice | None,
        *,
        decision: Decision | None,
        reason: str | None,
        fractions: tuple[float, float],
        bar_ns: int | None,
        wall: int,
    ) -> Answer:
        action = decision.action_id if decision else HOLD
        q_values = decision.q_values if decision else None
        return {
            "symbol": symbol,
            "action": ACTIONS[action],
            "action_id": action,
            "confidence": decision.probabilities[action] if decision else None,
            "probabilities": list(decision.probabilities) if decision else None,
            "value": decision.value if decision else None,
            "q_values": list(q_values) if q_values is not None else None,
            "position_fraction": fractions[0],
            "cash_fraction": fractions[1],
            "model": choice.model.ref() if choice else None,
            "event_time": format_time_ns(bar_ns) if bar_ns is not None else None,
            "decided_at": format_time_ns(wall // 1000 * 1000),
            "data_age_ms": self._age(bar_ns, wall) if bar_ns is not None else None,
            "reason": reason,
        }

    def _hold(
        self,
        symbol: str,
        choice: Choice | None,
        *,
        reason: str,
        bar: Mapping[str, Any] | None = None,
    ) -> Answer:
        fractions = (0.0, 1.0)
        if choice is not None:
            fractions = self._portfolio.fractions(choice.model.key, symbol)
        return self._answer(
            symbol,
            choice,
            decision=None,
            reason=reason,
            fractions=fractions,
            bar_ns=parse_time_ns(bar["event_time"]) if bar else None,
            wall=self._wall(),
        )

    # ---- age

    def _age(self, bar_ns: int, wall: int) -> float | None:
        age = self._mirror.market.age_ms(bar_ns + MINUTE_NS, wall=wall)
        return None if age is None else round(age, 3)

    def _stale(self, bar_ns: int) -> str | None:
        age = self._age(bar_ns, self._wall())
        return "stale" if self._staleness.stale(age, rate=self._mirror.market.rate) else None

    def _aged(self, answer: Answer, bar_ns: int, choice: Choice) -> Answer:
        wall = self._wall()
        age = self._age(bar_ns, wall)
        if not self._staleness.stale(age, rate=self._mirror.market.rate):
            plain = {k: v for k, v in answer.items() if k in _FIELDS}  # without the account
            return {**plain, "data_age_ms": age}
        fractions = (answer["position_fraction"], answer["cash_fraction"])
        return self._answer(
            answer["symbol"],
            choice,
            decision=None,
            reason="stale",
            fractions=fractions,
            bar_ns=bar_ns,
            wall=wall,
        )

    # ---- memory

    def _known(self, choice: Choice, symbol: str, bar_ns: int) -> Answer | None:
        return self._answers.get((choice.model.key, symbol, bar_ns))

    def _remember(self, model: str, symbol: str, bar_ns: int, answer: Answer) -> None:
        key = (model, symbol, bar_ns)
        self._answers.pop(key, None)
        self._answers[key] = answer
        if len(self._answers) > self._max:
            self._answers.popitem(last=False)

    def _published(self, updates: Sequence[Update]) -> None:
        """Take published signals: after a restart they say where the accounts stood."""
        choice = self._policy.choice
        if choice is None:
            return
        for update in updates:
            if update.channel != "signals":
                continue
            try:
                # Its own payload: one poll may bring several bars of a symbol.
                self._follow(choice, update.symbol, orjson.loads(update.data))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                log.warning("signals: one of %s has another shape: %r", update.symbol, error)

    def _follow(self, choice: Choice, symbol: str, signal: Mapping[str, Any]) -> None:
        if signal.get("event_time") is None:
            return
        model = signal.get("model") or {}
        key = f"{model.get('id')}:{model.get('version')}" if model else choice.model.key
        if key != choice.model.key:
            return
        bar_ns = parse_time_ns(signal["event_time"])
        action = int(signal["action_id"])
        self._portfolio.follow(key, symbol, signal, bar_ns=bar_ns)
        known = self._known(choice, symbol, bar_ns)
        if known is not None and known["action_id"] == action:
            return
        answer = {k: v for k, v in signal.items() if k in _FIELDS | _ACCOUNT}
        self._remember(key, symbol, bar_ns, answer)


_ACCOUNT = frozenset(("account", "fills"))
_FIELDS = frozenset(
    (
        "symbol", "action", "action_id", "confidence", "probabilities", "value", "q_values",
        "position_fraction", "cash_fraction", "model", "event_time", "decided_at", "data_age_ms",
        "reason",
    )
)  # fmt: skip
