"""Files of variants: what is read, and what is refused by name."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmarr_lightning.crossval.plan import resolve_configs
from cmarr_lightning.crossval.variants import read_variants, variant_words
from cmarr_lightning.errors import InputError

PUBLISHED = [
    "ablations",
    "head_to_head_published",
    "head_to_head_published_msp_improv",
    "head_to_head_shared",
    "head_to_head_shared_msp_improv",
    "loss_weights",
]


def write(folder: Path, text: str) -> Path:
    path = folder / "variants.yaml"
    path.write_text(text)
    return path


def test_a_variant_may_change_nothing_or_several_places(tmp_path: Path):
    path = write(tmp_path, "full:\nfew+long: {trainer: {max_epochs: 3}, model: {init_args: {flow_steps: 5}}}")
    assert read_variants(path) == {
        "full": {},
        "few+long": {"trainer": {"max_epochs": 3}, "model": {"init_args": {"flow_steps": 5}}},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no variants"),
        ("- a", "no variants"),
        ("a: [", "cannot be read"),
        ("a: 3", "a is 3, not a part of a configuration"),
        ("a/b: {}", "'a/b' cannot be the name"),
        ("..: {}", "'..' cannot be the name"),
        ("1: {}", "1 cannot be the name"),
        ("fold-0_seed-0: {}", "cannot be the name"),
        ("a: {seed_everything: 3}", "a sets seed_everything, .*use --seeds"),
        ("a: {data: {init_args: {fold: 3}}}", r"a sets data\.init_args\.fold, .*use --folds"),
    ],
)
def test_what_is_no_variant_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        read_variants(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read"):
        read_variants(tmp_path / "gone.yaml")


def resolve(config: Path, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    words = ["-c", str(config), "--data.store", "nowhere"]
    return resolve_configs({name: [*words, *variant_words(override)] for name, override in variants.items()})


def test_a_variant_with_a_wrong_key_is_refused(config: Path):
    with pytest.raises(InputError, match=r"^b: .* cannot be used: .*weight_alignment"):
        resolve(config, {"a": {}, "b": {"model": {"init_args": {"weight_alignment": 0}}}})


@pytest.fixture(scope="module")
def resolved(root: Path, config: Path) -> dict[str, dict[str, Any]]:
    """Two variants and those of every published file, resolved by one process, which takes seconds to start."""
    sweeps = root / "experiments" / "configs" / "sweeps"
    variants: dict[str, dict[str, Any]] = {"plain": {}, "changed": {"model": {"init_args": {"weight_align": 0.25}}}}
    for path in sorted(sweeps.glob("*.yaml")):
        if not path.stem.startswith("wandb_"):
            variants |= {f"{path.stem}/{name}": change for name, change in read_variants(path).items()}
    return resolve(config, variants)


@pytest.fixture(scope="module")
def published(resolved: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Every published file of variants -> its variants, resolved."""
    found: dict[str, list[str]] = {}
    for name, one in resolved.items():
        if "/" in name:
            found.setdefault(name.split("/")[0], []).append(yaml.safe_dump(one))
    return found


def test_a_variant_changes_what_it_names_and_nothing_else(resolved: dict[str, dict[str, Any]]):
    plain, changed = deepcopy(resolved["plain"]), deepcopy(resolved["changed"])
    assert plain["model"]["init_args"].pop("weight_align") == 0.5
    assert changed["model"]["init_args"].pop("weight_align") == 0.25
    assert plain == changed


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_variants_differ_from_each_other(published: dict[str, list[str]], name: str):
    assert len(published[name]) >= 4
    assert len(set(published[name])) == len(published[name])


def test_no_published_file_of_variants_is_left_out(published: dict[str, list[str]]):
    assert sorted(published) == sorted(PUBLISHED)


@pytest.mark.parametrize("recipe", ["published", "shared"])
def test_on_msp_improv_only_mmin_was_published_with_other_settings(root: Path, recipe: str):
    sweeps = root / "experiments" / "configs" / "sweeps"
    usual, other = (read_variants(sweeps / f"head_to_head_{recipe}{end}.yaml") for end in ("", "_msp_improv"))
    general, special = (variants.pop("MMIN")["model"]["init_args"] for variants in (usual, other))
    weights = {"weight_imagine": 2.0, "weight_cycle": 0.5}  # 4 and 2, the defaults, on IEMOCAP
    assert not weights.keys() & general.keys()
    assert weights.items() <= special.items()
    if recipe == "published":
        assert other.pop("CM-ARR_unweighted")["model"] == {"init_args": {"balance_classes": 0}}
    else:  # the rate was chosen on MSP-IMPROV again, where IF-MMIN collapsed
        general, special = (variants.pop("IF-MMIN")["model"]["init_args"] for variants in (usual, other))
        assert special == general | {"learning_rate": 1e-3}
    assert usual == other
