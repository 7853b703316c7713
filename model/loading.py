"""Brings up what a request needs: the engine, the tokenizer, the prompt's form, the defaults."""

import asyncio
import logging

from model.config import Settings
from model.engine import AsyncEngine
from model.generation import LoadedModel
from model.prompt import PromptEncoder
from model.sampling import load_defaults
from model.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


async def load_model(settings: Settings, engine: AsyncEngine) -> LoadedModel:
    """Raises EngineError with one clear line."""
    await engine.start(lambda message: logger.info(message))
    # After the engine: its complaint about a model that is not there is the clearer one.
    tokenizer, defaults = await asyncio.gather(
        asyncio.to_thread(
            load_tokenizer, settings.model, trust_remote_code=settings.trust_remote_code
        ),
        asyncio.to_thread(load_defaults, settings.model),
    )
    encoder = PromptEncoder(tokenizer, engine.info.max_model_len, engine.info.vocab_size)
    ends = tuple(i for i in tokenizer.end_token_ids if i < engine.info.vocab_size)
    return LoadedModel(engine, tokenizer, encoder, defaults, ends)
