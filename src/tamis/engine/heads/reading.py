"""Which head a checkpoint has: the one list of those there are."""

import msgspec

from tamis.engine.checkpoint import TAMIS_FILE, Checkpoint
from tamis.engine.heads.classification import ClassificationOptions
from tamis.engine.heads.head import HeadOptions
from tamis.engine.heads.maxsim import MaxSimOptions
from tamis.errors import UnsupportedModelError


class _HeadDescription(msgspec.Struct, frozen=True):
    """What heads read in `tamis.json`; one that names none has the head of `config.json`."""

    head: ClassificationOptions | MaxSimOptions = ClassificationOptions()


def read_head(checkpoint: Checkpoint) -> HeadOptions:
    """A checkpoint's head, found fit to run; its tensors are still to be read.

    Raises:
        UnsupportedModelError: the head or an option of it is not known, or is not in the model.
    """
    own = {} if checkpoint.head is None else {"head": checkpoint.head}
    try:
        head: HeadOptions = msgspec.convert(own, _HeadDescription).head
    except msgspec.ValidationError as error:
        path = checkpoint.folder / TAMIS_FILE
        raise UnsupportedModelError(f"tamis cannot use {path}: {error}") from error
    head.require_fit(checkpoint)
    return head
