"""The verbs that fit a separate model and keep no state: messages in, messages out. Libraries are imported on use."""

from __future__ import annotations

from gr2.v1 import worker_pb2 as pb

from gr2_worker.rpc import wire
from gr2_worker.rpc.compute import Emit
from gr2_worker.types import CancelCheck


def fit_trees(request: pb.FitTreesRequest, num_threads: int, check: CancelCheck, emit: Emit) -> None:
    from gr2_worker import trees

    def on_progress(count: int, most: int, ndcg: float) -> None:
        check()
        emit(pb.FitTreesResponse(progress=pb.FitProgress(epoch=count, epochs=most, metrics={"ndcg": ndcg})))

    fitted = trees.fit_trees(
        wire.matrix_in(request.features, "features", "<f4"),
        wire.ints(request.labels, "labels"),
        list(request.gains),
        wire.ints(request.group_sizes, "group_sizes"),
        wire.ints(request.folds, "folds"),
        trees.TreesConfig(**wire.config_fields(request.config)),
        num_threads,
        on_progress,
    )
    result = pb.TreesResult(models=fitted.models, gains=fitted.gains, trees=fitted.trees, ndcg=fitted.ndcg)
    emit(pb.FitTreesResponse(result=result))


def fit_cross_encoder(
    request: pb.FitCrossEncoderRequest, model_path: str, device: str, check: CancelCheck, emit: Emit
) -> None:
    """model_path: the request's, confined to the worker's roots."""
    from gr2_worker import cross_encoder

    def on_progress(done: int, total: int, loss: float | None) -> None:
        check()
        metrics = {} if loss is None else {"loss": loss}
        emit(pb.FitCrossEncoderResponse(progress=pb.FitProgress(epoch=done, epochs=total, metrics=metrics)))

    scores = cross_encoder.fit_cross_encoder(
        model_path,
        list(request.queries),
        list(request.texts),
        wire.ints(request.group_sizes, "group_sizes"),
        wire.ints(request.rows, "rows"),
        wire.ints(request.targets, "targets"),
        cross_encoder.CrossEncoderConfig(**wire.config_fields(request.config)),
        device,
        on_progress,
    )
    emit(pb.FitCrossEncoderResponse(result=pb.CrossEncoderScores(scores=scores.astype("<f4").tobytes())))
