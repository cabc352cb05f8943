"""Second stage: ask the model API about every image of a shard."""

from imagebatch.stages.score.stage import ShardScore, score

__all__ = ["ShardScore", "score"]
