"""The gRPC service: methods and status codes. No maths, no conversions (wire.py), no state of models (engine.py).

All verbs run on one thread (compute.py). gRPC's own threads only wait, so GetInfo
and health answer while a verb computes.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import grpc
import psutil
import torch
import transformers
from gr2.v1 import worker_pb2 as pb
from gr2.v1 import worker_pb2_grpc as pb_grpc

from gr2_worker import __version__, errors
from gr2_worker.engine import Engine
from gr2_worker.memory import is_out_of_memory
from gr2_worker.rpc import fits, wire
from gr2_worker.rpc.access import Access
from gr2_worker.rpc.compute import ComputeThread, Emit, Verb
from gr2_worker.types import CancelCheck, DrawnToken

log = logging.getLogger("gr2_worker")

STATUS = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
}


class WorkerService(pb_grpc.WorkerServicer):
    """One method per verb: convert, compute, convert."""

    def __init__(
        self,
        engine: Engine,
        compute: ComputeThread,
        num_threads: int,
        on_shutdown: Callable[[], None],
        access: Access,
    ) -> None:
        self._engine, self._compute, self._num_threads, self._access = engine, compute, num_threads, access
        self._on_shutdown = on_shutdown

    # ------------------------------------------------------------ plumbing

    def _stream(self, context: grpc.ServicerContext, verb: Verb) -> Iterator[Any]:
        try:
            yield from self._compute.run(verb, context)
        except BaseException as error:
            _abort(context, error)

    def _unary(self, context: grpc.ServicerContext, verb: Callable[[CancelCheck], Any]) -> Any:
        answers = list(self._stream(context, lambda check, emit: emit(verb(check))))
        return answers[0]

    # ------------------------------------------------------------ info

    def GetInfo(self, request: pb.GetInfoRequest, context: grpc.ServicerContext) -> pb.GetInfoResponse:
        device = self._engine.device
        if device.type == "cuda":
            name = f"{device} {torch.cuda.get_device_name(device)}"
            total = torch.cuda.get_device_properties(device).total_memory
            used = torch.cuda.max_memory_allocated(device)
        else:
            name, total, used = "cpu", psutil.virtual_memory().total, _peak_resident_bytes()
        return pb.GetInfoResponse(
            worker_version=__version__,
            python_version=platform.python_version(),
            torch_version=torch.__version__,
            transformers_version=transformers.__version__,
            device=name,
            num_threads=self._num_threads,
            memory_total_bytes=total,
            memory_used_bytes=used,
            model_ids=self._engine.model_ids,
            busy_seconds=self._compute.busy_seconds,
        )

    # ------------------------------------------------------------ models

    def TrainTokenizer(
        self, request: pb.TrainTokenizerRequest, context: grpc.ServicerContext
    ) -> pb.TrainTokenizerResponse:
        def verb(check: CancelCheck) -> pb.TrainTokenizerResponse:
            from tokenizers import Tokenizer

            from gr2_worker.items.bpe import train_bpe

            if request.vocab_size < 256:
                raise errors.InvalidRequest(f"vocab_size must be >= 256, got {request.vocab_size}")
            trained = train_bpe(list(request.texts), request.vocab_size, list(request.special_tokens))
            size = Tokenizer.from_str(trained.decode()).get_vocab_size(with_added_tokens=True)
            return pb.TrainTokenizerResponse(tokenizer_json=trained, vocab_size=size)

        return self._unary(context, verb)

    def LoadModel(self, request: pb.LoadModelRequest, context: grpc.ServicerContext) -> pb.LoadModelResponse:
        def verb(check: CancelCheck) -> pb.LoadModelResponse:
            if self._access.serving and request.trainable:
                raise errors.PermissionDenied("this worker was started for serving: set trainable=false")
            spec = wire.load_spec(request)
            if spec.path:
                if spec.gguf_file:
                    self._access.path(os.path.join(spec.path, spec.gguf_file))
                spec = replace(spec, path=self._access.path(spec.path))
            loaded = self._engine.load_model(request.model_id, spec)
            return pb.LoadModelResponse(
                model_id=request.model_id,
                num_parameters=loaded.num_parameters,
                num_trained=loaded.num_trained,
                vocab_size=loaded.vocab_size,
                hidden_size=loaded.hidden_size,
                max_positions=loaded.max_positions,
                tokenizer_json=loaded.tokenizer_json,
                added_token_ids=loaded.added_token_ids,
                eos_token_id=loaded.eos_token_id,
                chat_template=loaded.chat_template,
                bos_token=loaded.bos_token,
            )

        return self._unary(context, verb)

    def UnloadModel(self, request: pb.UnloadModelRequest, context: grpc.ServicerContext) -> pb.UnloadModelResponse:
        def verb(check: CancelCheck) -> pb.UnloadModelResponse:
            self._engine.unload_model(request.model_id)
            return pb.UnloadModelResponse()

        return self._unary(context, verb)

    # ------------------------------------------------------------ the four verbs

    def Forward(self, request: pb.ForwardRequest, context: grpc.ServicerContext) -> pb.ForwardResponse:
        def verb(check: CancelCheck) -> pb.ForwardResponse:
            loaded = self._engine.model(request.model_id)
            before = loaded.reused_tokens
            result = self._engine.forward(request.model_id, wire.forward_spec(request), check)
            return wire.forward_response(result, loaded.reused_tokens - before, loaded.weights_id)

        return self._unary(context, verb)

    def ForwardBackward(
        self, request: pb.ForwardBackwardRequest, context: grpc.ServicerContext
    ) -> pb.ForwardBackwardResponse:
        def verb(check: CancelCheck) -> pb.ForwardBackwardResponse:
            spec = wire.train_spec(request)
            return wire.train_response(self._engine.forward_backward(request.model_id, request.request_id, spec, check))

        return self._unary(context, verb)

    def OptimStep(self, request: pb.OptimStepRequest, context: grpc.ServicerContext) -> pb.OptimStepResponse:
        def verb(check: CancelCheck) -> pb.OptimStepResponse:
            result = self._engine.optim_step(request.model_id, request.request_id, wire.adamw_params(request))
            return pb.OptimStepResponse(
                grad_norm=result.grad_norm, step=result.step, weight_version=result.weight_version
            )

        return self._unary(context, verb)

    def Sample(self, request: pb.SampleRequest, context: grpc.ServicerContext) -> Iterator[pb.SampleResponse]:
        def verb(check: CancelCheck, emit: Emit) -> None:
            params = wire.sample_params(request)
            loaded = self._engine.model(request.model_id)
            version, weights_id, before = loaded.weight_version, loaded.weights_id, loaded.reused_tokens
            done, total = 0, len(params.prompts) * params.num_samples

            def on_tokens(drawn: list[DrawnToken]) -> None:
                emit(
                    pb.SampleResponse(
                        tokens=[wire.drawn_token(t) for t in drawn],
                        weight_version=version,
                        weights_id=weights_id,
                        done=done,
                        total=total,
                    )
                )

            watcher = on_tokens if request.stream_tokens else None
            for items in self._engine.sample(request.model_id, params, check, watcher):
                done += len(items)
                emit(
                    pb.SampleResponse(
                        items=[wire.sampled_item(i) for i in items],
                        weight_version=version,
                        weights_id=weights_id,
                        done=done,
                        total=total,
                        reused_prompt_tokens=loaded.reused_tokens - before,
                    )
                )

        return self._stream(context, verb)

    def BeamSearch(self, request: pb.BeamSearchRequest, context: grpc.ServicerContext) -> pb.BeamSearchResponse:
        def verb(check: CancelCheck) -> pb.BeamSearchResponse:
            return wire.beam_response(self._engine.beam_search(request.model_id, wire.beam_params(request), check))

        return self._unary(context, verb)

    # ------------------------------------------------------------ items

    def Embed(self, request: pb.EmbedRequest, context: grpc.ServicerContext) -> pb.EmbedResponse:
        def verb(check: CancelCheck) -> pb.EmbedResponse:
            from gr2_worker.items.embed import embed_texts

            embeddings = embed_texts(
                self._access.path(request.model_path),
                list(request.texts),
                wire.positive(request.batch_size, "batch_size"),
                request.normalize,
                str(self._engine.device),
            )
            return pb.EmbedResponse(embeddings=wire.matrix_out(embeddings))

        return self._unary(context, verb)

    def Factorize(self, request: pb.FactorizeRequest, context: grpc.ServicerContext) -> pb.FactorizeResponse:
        def verb(check: CancelCheck) -> pb.FactorizeResponse:
            from gr2_worker.items.factorize import factorize

            factors = factorize(
                request.size,
                wire.ints(request.rows, "rows"),
                wire.ints(request.cols, "cols"),
                wire.floats(request.values, "values"),
                request.dims,
                request.seed,
            )
            return pb.FactorizeResponse(factors=wire.matrix_out(factors))

        return self._unary(context, verb)

    def FitTrees(self, request: pb.FitTreesRequest, context: grpc.ServicerContext) -> Iterator[pb.FitTreesResponse]:
        def verb(check: CancelCheck, emit: Emit) -> None:
            fits.fit_trees(request, self._num_threads, check, emit)

        return self._stream(context, verb)

    def FitCrossEncoder(
        self, request: pb.FitCrossEncoderRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FitCrossEncoderResponse]:
        def verb(check: CancelCheck, emit: Emit) -> None:
            path = self._access.path(request.model_path)
            fits.fit_cross_encoder(request, path, str(self._engine.device), check, emit)

        return self._stream(context, verb)

    def FitSemanticIds(
        self, request: pb.FitSemanticIdsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FitSemanticIdsResponse]:
        def verb(check: CancelCheck, emit: Emit) -> None:
            from gr2_worker.items.config import QuantizerConfig
            from gr2_worker.items.quantizer import fit

            def on_progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
                check()
                emit(pb.FitSemanticIdsResponse(progress=pb.FitProgress(epoch=epoch, epochs=epochs, metrics=metrics)))

            config = QuantizerConfig(**wire.quantizer_config(request.config))
            pairs = None
            if request.HasField("positive_pairs") and request.positive_pairs.rows:
                pairs = wire.matrix_in(request.positive_pairs, "positive_pairs", "<i4")
            fitted = fit(wire.matrix_in(request.embeddings, "embeddings", "<f4"), config, pairs, on_progress)
            emit(
                pb.FitSemanticIdsResponse(
                    result=pb.FitResult(
                        codes=wire.int_matrix_out(fitted.codes),
                        artifact=fitted.artifact,
                        metrics=fitted.metrics,
                        code_vectors=wire.matrix_out(fitted.code_vectors),
                    )
                )
            )

        return self._stream(context, verb)

    def EncodeSemanticIds(
        self, request: pb.EncodeSemanticIdsRequest, context: grpc.ServicerContext
    ) -> pb.EncodeSemanticIdsResponse:
        def verb(check: CancelCheck) -> pb.EncodeSemanticIdsResponse:
            from gr2_worker.items.quantizer import encode

            taken = None
            if request.HasField("taken") and request.taken.rows:
                taken = wire.matrix_in(request.taken, "taken", "<i4")
            embeddings = wire.matrix_in(request.embeddings, "embeddings", "<f4")
            codes = encode(request.artifact, embeddings, taken, request.apart)
            return pb.EncodeSemanticIdsResponse(codes=wire.int_matrix_out(codes))

        return self._unary(context, verb)

    # ------------------------------------------------------------ state

    def SaveState(self, request: pb.SaveStateRequest, context: grpc.ServicerContext) -> pb.SaveStateResponse:
        def verb(check: CancelCheck) -> pb.SaveStateResponse:
            info = self._engine.save_state(
                request.model_id,
                self._access.path(request.path),
                request.include_optimizer,
                dict(request.metadata),
            )
            return pb.SaveStateResponse(sha256=info.sha256, bytes=info.weights_bytes)

        return self._unary(context, verb)

    def LoadState(self, request: pb.LoadStateRequest, context: grpc.ServicerContext) -> pb.LoadStateResponse:
        def verb(check: CancelCheck) -> pb.LoadStateResponse:
            path = self._access.path(request.path)
            state = self._engine.load_state(request.model_id, path, request.include_optimizer)
            return pb.LoadStateResponse(
                step=state.step,
                weight_version=state.weight_version,
                sha256=state.sha256,
                metadata=state.metadata,
                weights_id=state.weights_id,
            )

        return self._unary(context, verb)

    def ExportModel(self, request: pb.ExportModelRequest, context: grpc.ServicerContext) -> pb.ExportModelResponse:
        def verb(check: CancelCheck) -> pb.ExportModelResponse:
            dtype = wire.dtype_name(request.dtype)
            path = self._access.path(request.path)
            size = self._engine.export_model(request.model_id, path, dtype, dict(request.files))
            return pb.ExportModelResponse(bytes=size)

        return self._unary(context, verb)

    def Shutdown(self, request: pb.ShutdownRequest, context: grpc.ServicerContext) -> pb.ShutdownResponse:
        context.add_callback(self._on_shutdown)  # runs once the answer has been sent
        return pb.ShutdownResponse()


def _peak_resident_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().rss)
    # kibibytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _abort(context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    """Ends a call with the status code of a fault; anything unexpected is INTERNAL and logged with its traceback."""
    if isinstance(error, GeneratorExit):
        raise error
    code = next((c for kind, c in STATUS.items() if isinstance(error, kind)), None)
    if code is None and is_out_of_memory(error):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory")
    if code is None:
        log.error("a verb failed", exc_info=error)
        line = (str(error).strip().splitlines() or [""])[0]
        context.abort(grpc.StatusCode.INTERNAL, f"bug in the worker: {type(error).__name__}: {line}")
    context.abort(code, str(error))
    raise AssertionError("abort never returns")
