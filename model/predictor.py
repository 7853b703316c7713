"""The model as KServe sees it: a `kserve.Model` over the host's engine.

Owns V1 and V2 payloads inside KServe's data plane. Knows no route. Event loop only.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from model.deadline import deadline_of
from model.host import Host
from model.items import ItemResult, answer_all, check_count, raise_when_nothing_was_done
from model.kserve_sdk import InferOutput, InferRequest, InferResponse, Model
from model.parsing import validate
from model.schemas import PredictRequest
from model.schemas_v2 import INPUTS, OUTPUTS, InferBody, queries
from model.tenant import tenant_of


class Predictor(Model):  # type: ignore[misc]  # the SDK has no types
    def __init__(self, host: Host) -> None:
        super().__init__(host.settings.model_name)
        self._host = host
        # KServe registers only what is ready before its server starts; `healthy` tells the truth.
        self.ready = True
        self.engine = True

    async def healthy(self) -> bool:
        return self._host.is_ready

    def load(self) -> bool:
        """KServe calls this on the request path while `healthy` is false: it must do nothing."""
        return self._host.is_ready

    def start(self) -> None:
        """`ready` is true from the beginning."""

    async def start_engine(self) -> None:
        """Runs as long as the engine; an EngineError from here ends KServe's server."""
        await self._host.run()

    def stop(self) -> None:
        self._host.stop()

    def stop_engine(self) -> None:
        self._host.stop()

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in INPUTS]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in OUTPUTS]

    async def predict(
        self,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        headers = headers or {}
        request_id = headers.get("x-request-id", "")
        if isinstance(payload, InferRequest):
            return await self._infer(payload, request_id, headers)
        results = await self._answer(validate(PredictRequest, payload).instances, headers)
        # Even where nothing was done: of a refusal of the whole, KServe's batcher would hand every
        # caller the words alone, with status 200 and without the time to come back.
        return {"predictions": [result.as_json(request_id) for result in results]}

    async def _answer(self, items: list[Any], headers: Mapping[str, str]) -> list[ItemResult]:
        settings = self._host.settings
        check_count(items, settings.max_predict_instances, "instances")
        self._host.metrics.predict_batch(len(items))
        deadline = deadline_of(headers, settings.request_timeout_s)
        return await answer_all(self._host.generator, items, deadline, tenant_of(headers))

    async def _infer(
        self, payload: Any, request_id: str, headers: Mapping[str, str]
    ) -> InferResponse:
        inputs = [
            {
                "name": item.name,
                "shape": item.shape,
                "datatype": item.datatype,
                "data": item.data,
            }
            for item in payload.inputs
        ]
        body = validate(InferBody, {"inputs": inputs, "parameters": payload.parameters})
        most = self._host.settings.max_predict_instances
        results = await self._answer(queries(body, most), headers)
        raise_when_nothing_was_done(results)
        columns = {
            "response": [item.answer.text if item.answer else "" for item in results],
            "chat_id": [item.chat_id for item in results],
            "finish_reason": [
                item.answer.end.finish_reason if item.answer else "error" for item in results
            ],
            "error": [
                "" if item.answer else orjson.dumps(item.error_json(request_id)).decode()
                for item in results
            ],
        }
        outputs = [
            InferOutput(name=name, shape=[len(data)], datatype="BYTES", data=data)
            for name, data in columns.items()
        ]
        return InferResponse(
            response_id=payload.id or uuid4().hex, model_name=self.name, infer_outputs=outputs
        )
