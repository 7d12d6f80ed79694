"""What every stream must hold, used by several tests."""

from pellucid.text.tokenizer import Tokenizer


def check_stream(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream()
    said = ""
    for place, i in enumerate(ids):
        said += stream.push(i)
        assert tokenizer.decode(ids).startswith(said), (place, said)
    assert said + stream.finish() == tokenizer.decode(ids)
