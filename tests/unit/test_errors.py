from collections.abc import Iterator

from tamis import errors


def _tree(root: type[errors.TamisError]) -> Iterator[type[errors.TamisError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [
        error.code for error in _tree(errors.TamisError) if error.__module__ == errors.__name__
    ]

    assert len(codes) > 20
    assert len(codes) == len(set(codes))


def test_the_tree_at_the_top_of_the_file_names_every_error() -> None:
    text = errors.__doc__ or ""

    for error in _tree(errors.TamisError):
        if error.__module__ == errors.__name__:
            assert error.__name__ in text
