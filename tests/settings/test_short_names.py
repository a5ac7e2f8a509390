"""Short names of dotted keys: what people see of a trial's parameters."""

from podium.search_space import short_names


def test_a_name_is_as_short_as_it_can_be_and_tells_its_key_apart() -> None:
    assert short_names(["optimizer.learning_rate", "model.depth"]) == {
        "optimizer.learning_rate": "learning_rate",
        "model.depth": "depth",
    }
    switches = ["model.attention.enabled", "augmentation.mixup.enabled", "augmentation.mixup.alpha"]
    assert list(short_names(switches).values()) == ["attention.enabled", "mixup.enabled", "alpha"]
    assert short_names(["optimizer.name"]) == {"optimizer.name": "optimizer.name"}
    assert list(short_names(["model.filters", "model.late.filters"]).values()) == [
        "model.filters",
        "late.filters",
    ]


def test_equal_names_in_two_sections_get_theirs() -> None:
    assert list(short_names(["a.rate", "b.rate"]).values()) == ["a.rate", "b.rate"]
