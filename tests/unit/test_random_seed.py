from DmpWorkflow.core.random_seed import LARGEST, random_seed


def test_a_seed_can_be_reproduced() -> None:
    assert random_seed("job", 7, 1) == random_seed("job", 7, 1)
    assert random_seed("job", 7, 1, base=42) == random_seed("job", 7, 1, base=42)


def test_every_part_of_the_name_changes_the_seed() -> None:
    seeds = {
        random_seed("job", 7, 1),
        random_seed("other", 7, 1),
        random_seed("job", 8, 1),
        random_seed("job", 7, 2),
        random_seed("job", 7, 1, base=0),
        random_seed("job", 7, 1, base=42),
    }
    assert len(seeds) == 6


def test_seeds_fit_a_positive_signed_32_bit_integer() -> None:
    assert all(1 <= random_seed("job", number, 1) <= LARGEST for number in range(1000))
