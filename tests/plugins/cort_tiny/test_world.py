from __future__ import annotations

import contextlib
import io
from collections import Counter
from fractions import Fraction
from math import gcd
from random import Random

import pytest
from pydantic import ValidationError

from cort_tiny.families import FAMILIES, LARGE, LEVELS, OUT_OF_RANGE, Family
from cort_tiny.problems import TASK_LEVELS, is_test
from cort_tiny.tasks import TinyTasks


def tasks(**config: object) -> list:
    return list(TinyTasks(TinyTasks.Config(**config)).tasks())


def independent_answer(name: str, p: tuple[int, ...]) -> int:
    """The answer by another road than the one that the family takes."""
    match name:
        case "product":
            return sum(p[0] for _ in range(p[1] // 1000)) * 1000 + p[0] * (p[1] % 1000)
        case "modular-power":
            return p[0] ** p[1] % p[2]
        case "multiples":
            return len(set(range(p[1], p[0] + 1, p[1])) | set(range(p[2], p[0] + 1, p[2])))
        case "divisors":
            total, rest, prime = Fraction(1), p[0], 2  # by the prime factorisation
            while rest > 1:
                if rest % prime:
                    prime += 1
                    continue
                power = 1
                while rest % prime == 0:
                    rest, power = rest // prime, power * prime
                total *= Fraction(power * prime - 1, prime - 1)
            return int(total) - p[1] * p[0]
        case "recurrence":
            fibonacci = [0, 1]
            while len(fibonacci) < p[2]:
                fibonacci.append(fibonacci[-1] + fibonacci[-2])
            return fibonacci[p[2] - 2] * p[0] + fibonacci[p[2] - 1] * p[1]
        case "base-conversion":
            return sum(int(d) * p[1] ** place for place, d in enumerate(reversed(str(p[0]))))
        case "power-sum":
            return sum(map(lambda k: pow(k, p[0]), p[1:]))
        case "digit-sum":
            return sum(map(int, "".join(map(str, range(p[0], p[1] + 1)))))
    raise AssertionError(name)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("level", [*LEVELS, LARGE, OUT_OF_RANGE])
def test_answers_agree_with_an_independent_computation_and_with_every_program(
    family: Family, level: int
) -> None:
    rng = Random(f"{family.name}-{level}")
    for _ in range(5):
        p = family.sample(rng, level)
        answer = family.answer(p)
        assert answer == independent_answer(family.name, p)
        for program in family.programs(p):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(program, {})
            assert printed.getvalue() == f"{answer}\n"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_working_by_hand_ends_in_the_answer_and_every_equation_in_it_holds(family: Family) -> None:
    import re

    rng = Random(0)
    for level in LEVELS:
        for _ in range(25):
            p = family.sample(rng, level)
            lines = family.working(p)
            assert re.search(r"(\d+)\.$", lines[-1]).group(1) == str(family.answer(p))
            for left, right in re.findall(r"(?<![\w^])([\d*+-]+)=(\d+(?:[*+]\d+)*)", " ".join(lines)):
                assert eval(left) == eval(right), (left, right, lines)


def test_the_splits_share_no_instance_and_out_of_range_is_larger_than_any_in_range_one() -> None:
    prompts = {
        split: {t.prompt for t in tasks(split=split, size=400)} for split in ("train", "test", "test-out")
    }
    assert not prompts["train"] & prompts["test"]
    assert not (prompts["train"] | prompts["test"]) & prompts["test-out"]
    rng = Random(0)
    for family in FAMILIES.values():
        largest = max(max(family.sample(rng, level)) for level in (*LEVELS, LARGE) for _ in range(300))
        assert all(max(family.sample(rng, OUT_OF_RANGE)) > largest for _ in range(100)), family.name


def test_an_instance_is_in_the_test_split_whatever_its_wording() -> None:
    family = FAMILIES["divisors"]
    assert all(is_test(family, (n, 0)) == is_test(family, (n, 1)) for n in range(10, 240))


@pytest.mark.parametrize("split", ["train", "test", "test-out"])
def test_families_have_equal_shares_none_above_a_quarter(split: str) -> None:
    shares = Counter(t.metadata["family"] for t in tasks(split=split, size=200))
    assert len(shares) >= 6
    assert max(shares.values()) <= 200 / 4


def test_the_same_seed_gives_the_same_tasks_and_a_larger_size_only_adds_to_them() -> None:
    assert tasks(size=120, seed=3)[:40] == tasks(size=40, seed=3)
    assert tasks(size=40, seed=3) != tasks(size=40, seed=4)
    assert len({t.id for t in tasks(size=120)}) == 120


def test_only_the_families_that_are_asked_for_are_drawn() -> None:
    assert {t.metadata["family"] for t in tasks(size=10, families=("product", "divisors"))} == {
        "product",
        "divisors",
    }


def test_a_family_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValidationError, match="the families are product, modular-power"):
        TinyTasks.Config(families=("poetry",))


def test_a_size_beyond_what_a_family_holds_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASK_LEVELS, "divisors", {1: 1.0})
    with pytest.raises(ValueError, match=r"the family divisors has no more than .* smaller size"):
        tasks(split="test", size=400, families=("divisors",))


def test_every_family_has_levels_of_its_own_for_the_tasks() -> None:
    assert TASK_LEVELS.keys() == FAMILIES.keys()
    assert all(gcd(*levels) and set(levels) <= {*LEVELS, LARGE} for levels in TASK_LEVELS.values())
