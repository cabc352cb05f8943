"""Values for a pipeline's parameters: what is wrong is one line, before anything is started."""

import pytest
from imagebatch_pipelines.parameters import TABLE, ParameterError, declared_in, read

GIVEN = ["input=s3://b/i", "runs_uri=s3://b/r", "api_url=http://m:8080"]


def test_values_come_with_their_types() -> None:
    """Texts stay texts, an equals sign within one too."""
    assert read([*GIVEN, "shard_size=64", "model=a=b"]) == {
        "input": "s3://b/i",
        "runs_uri": "s3://b/r",
        "api_url": "http://m:8080",
        "shard_size": 64,
        "model": "a=b",
    }


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (GIVEN[:2], "api_url: no value, and the pipeline has no default; --set api_url=…"),
        ([*GIVEN, "shardsize=3"], "the pipeline has no parameter shardsize; did you mean shard_size?"),
        ([*GIVEN, "shard_size=many"], "shard_size is 'many': give a whole number"),
        ([*GIVEN, "shard_size=1.5"], "shard_size is '1.5': give a whole number"),
        ([*GIVEN, GIVEN[0]], "input is given twice"),
        ([*GIVEN, "model"], "'model' is not NAME=VALUE"),
    ],
)
def test_what_is_wrong_is_named(pairs: list[str], said: str) -> None:
    """The first of it, and what to do."""
    with pytest.raises(ParameterError) as caught:
        read(pairs, TABLE)
    assert str(caught.value) == said


def test_a_file_that_is_no_pipeline_is_refused() -> None:
    """And a type that has no form on a command line."""
    struct = {"root": {"inputDefinitions": {"parameters": {"a": {"parameterType": "STRUCT"}}}}}
    for template in ({}, {"root": 3}, struct):
        with pytest.raises(ParameterError, match="not a compiled pipeline"):
            declared_in(template)
