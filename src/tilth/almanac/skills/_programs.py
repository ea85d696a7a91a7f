"""The grammar of small functions: families with parameters, their probes and wrong variants.

A family draws one :class:`Program`: what it should do in words, the body, arguments that reach
every branch (at the boundary of a condition, so that an off-by-one variant fails), and bodies that
are nearly right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilth.almanac.skills._words import GROUPS

__all__ = ["FAMILIES", "Program"]

_WORDS = tuple(word for group in GROUPS.values() for word in group)
_LETTERS = "abcdefghilmnoprst"


@dataclass(frozen=True)
class Program:
    """A function without its name.

    Attributes:
        family: Name of the family.
        params: The parameter list, such as ``n`` or ``a, b``.
        told: What it does, beginning with "return".
        body: The lines of the body, not indented.
        truth: The same function in Python, to compute expected values.
        probes: One argument tuple per branch.
        wrong: Bodies of wrong variants; every one fails at least one probe.
    """

    family: str
    params: str
    told: str
    body: str
    truth: Callable[..., Any]
    probes: tuple[tuple[Any, ...], ...]
    wrong: tuple[str, ...]

    def code(self, name: str, body: str | None = None) -> str:
        """The function under `name`, with its own body or another."""
        lines = (self.body if body is None else body).split("\n")
        return "\n".join([f"def {name}({self.params}):", *("    " + line for line in lines)])

    def tests(self, name: str) -> list[str]:
        """One assert line per probe."""
        return [
            f"assert {name}({', '.join(json.dumps(a) for a in args)}) == "
            f"{json.dumps(self.truth(*args))}"
            for args in self.probes
        ]


def _two(rng: random.Random, low: int = 2, high: int = 9) -> tuple[int, int]:
    a, b = rng.sample(range(low, high + 1), 2)
    return a, b


def _chain(rng: random.Random) -> Program:
    a, b = _two(rng)
    n = rng.randint(2, 6)
    kind = rng.randrange(3)
    if kind == 2:
        told, body = f"return n plus {a}, all times {b}", f"return (n + {a}) * {b}"
        wrong = (f"return n + {a} * {b}", f"return (n - {a}) * {b}", f"return n + {a}")
        return Program("chain", "n", told, body, lambda x: (x + a) * b, ((n,),), wrong)
    word, sign = (("plus", "+"), ("minus", "-"))[kind]
    s = 1 if kind == 0 else -1
    told, body = f"return n times {a} {word} {b}", f"return n * {a} {sign} {b}"
    wrong = (f"return n * {a}", f"return n * {a + 1} {sign} {b}", f"return n {sign} {b}")
    return Program("chain", "n", told, body, lambda x: x * a + s * b, ((n,),), wrong)


def _mix(rng: random.Random) -> Program:
    k, m = _two(rng)
    c = rng.randint(1, 9)
    word, sign, s = rng.choice((("plus", "+", 1), ("minus", "-", -1)))
    told = f"return a times {k} plus b times {m} {word} {c}"
    body = f"return a * {k} + b * {m} {sign} {c}"
    wrong = (
        f"return a * {m} + b * {k} {sign} {c}",
        f"return a * {k} + b * {m}",
        f"return a * {k} + b {sign} {c}",
    )
    x, y = _two(rng, 1, 5)
    return Program("mix", "a, b", told, body, lambda p, q: p * k + q * m + s * c, ((x, y),), wrong)


def _wrap(rng: random.Random) -> Program:
    front, back = rng.sample(_WORDS, 2)
    told = f'return w with "{front}" before and "{back}" after it'
    wrong = (f'return "{back}" + w + "{front}"', f'return w + "{back}"', f'return "{front}" + w')
    body = f'return "{front}" + w + "{back}"'
    return Program("wrap", "w", told, body, lambda w: front + w + back, (("x",),), wrong)


def _letters(rng: random.Random) -> Program:
    c, k = rng.choice(_LETTERS), rng.randint(1, 15)
    told = f'return how many times w has "{c}", plus {k}'
    body = f'return w.count("{c}") + {k}'
    wrong = (f'return w.count("{c}")', f"return len(w) + {k}", f'return w.count("{c}") - {k}')
    probe = ("xx" + c * rng.randint(2, 3),)
    return Program("letters", "w", told, body, lambda w: w.count(c) + k, (probe,), wrong)


def _filter(rng: random.Random) -> Program:
    k, m = rng.randint(2, 15), rng.randint(2, 9)
    above = rng.random() < 0.5
    word, sign, flip = ("above", ">", ">=") if above else ("below", "<", "<=")
    told = f"return the numbers of xs {word} {k}, times {m}"
    body = f"return [x * {m} for x in xs if x {sign} {k}]"
    wrong = (
        f"return [x * {m} for x in xs if x {flip} {k}]",
        f"return [x for x in xs if x {sign} {k}]",
        f"return [x * {m} for x in xs]",
    )
    probe = ([k - 1, k, k + 1],)

    def truth(xs: list[int]) -> list[int]:
        return [x * m for x in xs if (x > k if above else x < k)]

    return Program("filter", "xs", told, body, truth, (probe,), wrong)


def _start(rng: random.Random) -> Program:
    k, tail = rng.randint(1, 5), rng.choice(_WORDS)
    told = f'return the first {k} letters of w and then "{tail}"'
    body = f'return w[:{k}] + "{tail}"'
    wrong = (f'return w[{k}:] + "{tail}"', f"return w[:{k}]", f'return w[:{k + 1}] + "{tail}"')
    return Program("start", "w", told, body, lambda w: w[:k] + tail, (("abcdefgh",),), wrong)


def _total(rng: random.Random) -> Program:
    word, call, f = rng.choice(
        (("sum", "sum", sum), ("largest", "max", max), ("smallest", "min", min))
    )
    a, b = _two(rng)
    told = f"return the {word} of xs times {a} plus {b}"
    body = f"return {call}(xs) * {a} + {b}"
    other = "len" if call == "sum" else "sum"
    wrong = (
        f"return {other}(xs) * {a} + {b}",
        f"return {call}(xs) * {a}",
        f"return {call}(xs) + {b}",
    )
    x, y = _two(rng, 3, 9)
    return Program("total", "xs", told, body, lambda xs: f(xs) * a + b, (([x, y],),), wrong)


def _bound(rng: random.Random) -> Program:
    a, k = rng.randint(2, 9), rng.randint(10, 60)
    most = rng.random() < 0.5
    word, sign, flip = ("most", ">", "<") if most else ("least", "<", ">")
    told = f"return n plus {a}, but at {word} {k}"
    body = f"m = n + {a}\nif m {sign} {k}:\n    return {k}\nreturn m"
    wrong = (
        f"return n + {a}",
        f"m = n + {a}\nif m {flip} {k}:\n    return {k}\nreturn m",
        f"m = n\nif m {sign} {k}:\n    return {k}\nreturn m",
    )
    probes = ((k - a + 1,), (k - a - 1,))
    return Program(
        "bound", "n", told, body, lambda n: (min if most else max)(n + a, k), probes, wrong
    )


def _level(rng: random.Random) -> Program:
    k = rng.randint(2, 40)
    yes, no = rng.sample(_WORDS, 2)
    above = rng.random() < 0.5
    word, sign, flip = ("above", ">", ">=") if above else ("below", "<", "<=")
    told = f'return "{yes}" if n is {word} {k}, else "{no}"'
    form = 'if n {} {}:\n    return "{}"\nreturn "{}"'
    wrong = (form.format(flip, k, yes, no), form.format(sign, k, no, yes), f'return "{no}"')
    probes = ((k + 1 if above else k - 1,), (k,))

    def truth(n: int) -> str:
        return yes if (n > k if above else n < k) else no

    return Program("level", "n", told, form.format(sign, k, yes, no), truth, probes, wrong)


def _divides(rng: random.Random) -> Program:
    d, a, b = rng.randint(2, 9), rng.randint(1, 9), rng.randint(1, 9)
    test = "n is even" if d == 2 else f"n divides by {d}"
    told = f"return n plus {a} if {test}, else n minus {b}"
    form = "if n % {} == {}:\n    return n + {}\nreturn n - {}"
    wrong = (form.format(d, 1, a, b), f"return n + {a}", f"return n - {b}")
    probes = ((d * rng.randint(2, 4),), (d * rng.randint(2, 4) + 1,))

    def truth(n: int) -> int:
        return n + a if n % d == 0 else n - b

    return Program("divides", "n", told, form.format(d, 0, a, b), truth, probes, wrong)


def _has(rng: random.Random) -> Program:
    c = rng.choice(_LETTERS)
    yes, no = rng.sample(_WORDS, 2)
    told = f'return "{yes}" if w has "{c}", else "{no}"'
    form = 'if "{}" {} w:\n    return "{}"\nreturn "{}"'
    wrong = (form.format(c, "not in", yes, no), f'return "{yes}"', f'return "{no}"')
    probes = (("x" + c,), ("xy",))

    def truth(w: str) -> str:
        return yes if c in w else no

    return Program("has", "w", told, form.format(c, "in", yes, no), truth, probes, wrong)


def _clamp(rng: random.Random) -> Program:
    a, low = rng.randint(1, 9), rng.randint(2, 20)
    high = low + rng.randint(4, 20)
    told = f"return n plus {a}, but at least {low} and at most {high}"
    form = "m = n + {}\nif m < {}:\n    return {}\nif m > {}:\n    return {}\nreturn m"
    wrong = (
        form.format(a, low, high, high, low),
        f"m = n + {a}\nif m < {low}:\n    return {low}\nreturn m",
        f"m = n + {a}\nif m > {high}:\n    return {high}\nreturn m",
    )
    probes = ((low - a - 1,), (high - a + 1,), (low - a + 2,))
    return Program(
        "clamp", "n", told, form.format(a, low, low, high, high),
        lambda n: min(max(n + a, low), high), probes, wrong,
    )  # fmt: skip


def _grades(rng: random.Random) -> Program:
    cuts = sorted(rng.sample(range(2, 30), rng.randint(2, 3)))
    words = rng.sample(_WORDS, len(cuts) + 1)
    parts = [f'"{w}" below {c}' for w, c in zip(words, cuts, strict=False)]
    told = f'return {", ".join(parts)}, else "{words[-1]}"'

    def body(sign: str, said: list[str]) -> str:
        lines = [f'if n {sign} {c}:\n    return "{w}"' for w, c in zip(said, cuts, strict=False)]
        return "\n".join([*lines, f'return "{said[-1]}"'])

    wrong = (body("<=", words), body(">", words), body("<", words[::-1]))
    probes = ((cuts[0] - 1,), *((c,) for c in cuts))

    def truth(n: int) -> str:
        return words[sum(n >= c for c in cuts)]

    return Program("grades", "n", told, body("<", words), truth, probes, wrong)


def _compare(rng: random.Random) -> Program:
    k, m = _two(rng, 1, 9)
    same = rng.choice(_WORDS)
    told = f'return a plus {k} if a is above b, b plus {m} if b is above a, else "{same}"'
    form = 'if a {0} b:\n    return a + {1}\nif b {0} a:\n    return b + {2}\nreturn "{3}"'
    wrong = (
        form.format(">=", k, m, same),
        form.format("<", k, m, same),
        form.format(">", m, k, same),
    )
    x, y = _two(rng, 1, 9)
    x, y = max(x, y), min(x, y)

    def truth(a: int, b: int) -> int | str:
        return a + k if a > b else b + m if b > a else same

    body = form.format(">", k, m, same)
    return Program("compare", "a, b", told, body, truth, ((x, y), (y, x), (x, x)), wrong)


Family = Callable[[random.Random], Program]
FAMILIES: dict[int, tuple[Family, ...]] = {
    1: (_chain, _mix, _wrap, _wrap, _letters, _filter, _start, _total, _mix),
    2: (_bound, _level, _divides, _has),
    3: (_clamp, _grades, _compare),
}
"""Families by level: no branch, one branch, two or three. A wide family is listed twice."""
