"""The workbench as a user types it: labels, tags, masked words, images, prompts; trained, measured, compared and asked."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Shell

pytestmark = pytest.mark.slow
TINY = "--stack.d-model 32 --stack.n-layers 1 --stack.n-heads 2 --stack.d-ff 64".split()
QUICK = "--training.warmup 5 --training.precision float32 --training.threads 1 --training.checkpoint-every 0".split()
QUICK += "--model.stack.dropout.embedding 0 --model.stack.dropout.residual 0".split()
Place = tuple[Shell, Path]


def train(shell: Shell, recipe: str, *flags: str) -> str:
    ran = shell("train", recipe, *TINY, *QUICK, *flags)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


@pytest.fixture(scope="module")
def place(workshop: Place) -> Place:
    """A folder with reviews, sentences, pictures and questions of a user."""
    shell, folder = workshop
    things = ["film", "book", "play", "song", "meal", "trip", "game", "talk", "show", "story", "city", "house"]
    judged = dict.fromkeys(("good", "lovely", "great"), "kind") | dict.fromkeys(("bad", "dull", "awful"), "unkind")
    rows = [(f"what a {word} {thing}", label) for thing in things for word, label in judged.items()]
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f'"{a}",{b}\n' for a, b in rows), encoding="utf-8")
    (folder / "text.txt").write_text("".join(f"{a} , it was {b} .\n" for a, b in rows) * 6, encoding="utf-8")
    names = ["Ada", "Bob", "Eve", "Max"]
    lines = [
        f"{name} B-PER\n{verb} O\n{town} B-LOC\n\n"
        for name in names
        for verb in ("saw", "left")
        for town in ("Rome", "Oslo", "Bern")
    ]
    (folder / "names.conll").write_text("".join(lines), encoding="utf-8")
    asked = [{"prompt": f"say {word}", "answer": word.upper()} for word in things]
    (folder / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked * 5), encoding="utf-8")
    return shell, folder


@pytest.fixture(scope="module")
def mlm(place: Place) -> str:
    shell, _ = place
    train(shell, "mlm", "--data", "text.txt", "--out", "runs/mlm", "--training.steps", "400", "--training.length", "16",
          "--training.batch-size", "8", "--data.vocab-size", "200", "--training.lr", "2e-3")  # fmt: skip
    return "runs/mlm"


@pytest.fixture(scope="module")
def labels(place: Place) -> str:
    shell, _ = place
    said = train(shell, "labels", "--data", "reviews.csv", "--out", "runs/labels", "--training.steps", "150",
                 "--training.batch-tokens", "200", "--data.vocab-size", "200", "--data.holdout", "0.2",
                 "--training.lr", "3e-3")  # fmt: skip
    assert "'text' is the text, 'label' the label" in said and "right 5" in said, said
    return "runs/labels"


@pytest.fixture(scope="module")
def images(place: Place) -> str:
    image = pytest.importorskip("PIL.Image")
    shell, folder = place
    random = np.random.default_rng(0)
    for label, bright in (("dark", 40), ("light", 200)):
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(random.normal(bright, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(folder / "photos" / label / f"{i}.png")
    train(shell, "images", "--data", "photos", "--out", "runs/images", "--training.steps", "40", "--training.batch-size", "16",
          "--model.image-size", "16", "--data.shift", "1", "--data.holdout", "0.2")  # fmt: skip
    return "runs/images"


@pytest.fixture(scope="module")
def asked(place: Place) -> str:
    shell, _ = place
    train(shell, "instruct", "--data", "asked.jsonl", "--out", "runs/asked", "--stack.n-kv-heads", "1", "--training.steps", "120",
          "--data.tokenizer", "char", "--training.batch-tokens", "300", "--data.valid", "asked.jsonl", "--training.lr", "3e-3",
          "--data.test", "asked.jsonl", "--training.metric", "exact_match", "--training.evaluate-every", "0")  # fmt: skip
    return "runs/asked"


def test_labels_are_learnt_and_asked(place: Place, labels: str) -> None:
    shell, _ = place
    result = json.loads(shell("evaluate", labels, "--json").stdout)
    assert result["accuracy"] == 1 and result["macro_f1"] == 1 and result["examples"] >= 5
    low, high = result["intervals"]["loss"]
    assert low < result["loss"] < high
    told = shell("classify", labels, "what a lovely film", "what a dull house").stdout.splitlines()
    assert (
        told[0].startswith("kind 0.") and told[1].startswith("unkind 0.") and told[0].endswith("\twhat a lovely film")
    )
    many = shell("classify", labels, "--json", "--top", "2", stdin="what a great talk\nwhat a bad trip\n").stdout
    one, two = map(json.loads, many.splitlines())
    assert one["label"] == "kind" and two["label"] == "unkind" and one["input"] == "what a great talk"
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_two_models_are_compared_on_the_same(place: Place, labels: str) -> None:
    shell, _ = place
    train(shell, "labels", "--data", "reviews.csv", "--out", "runs/worse", "--training.steps", "1", "--data.vocab-size", "200",
          "--data.holdout", "0.2")  # fmt: skip
    compared = json.loads(shell("evaluate", labels, "--compare", "runs/worse", "--json").stdout)["compared"]
    assert compared["accuracy"]["difference"] > 0 and compared["loss"]["difference"] < 0
    assert compared["loss"]["p"] < 0.05 and set(compared["loss"]) == {"difference", "interval", "p"}
    table = shell("evaluate", labels, "--compare", "runs/worse").stdout
    assert "95 % between" in table and "difference +" in table


def test_unseen_labels_are_said_and_wrong(place: Place, labels: str) -> None:
    shell, folder = place
    (folder / "new.csv").write_text("text,label\nwhat a good film,kind\nwhat a good film,strange\n", encoding="utf-8")
    ran = shell("evaluate", labels, "--data", "new.csv", "--json")
    assert json.loads(ran.stdout)["accuracy"] == 0.5
    assert "strange" in ran.stderr


def test_masked_words_are_filled_and_texts_become_vectors(place: Place, mlm: str) -> None:
    shell, _ = place
    result = json.loads(shell("evaluate", mlm, "--split", "valid", "--json").stdout)
    assert {"loss", "perplexity", "accuracy", "examples"} <= set(result) and result["accuracy"] > 0.2
    filled = json.loads(shell("fill", mlm, "what a good <mask> , it [MASK] kind .", "--top", "3", "--json").stdout)
    first, second = filled["masks"]
    assert len(first) == 3 and second[0]["word"] == "was" and second[0]["probability"] > second[1]["probability"]
    assert "  1. 0." in shell("fill", mlm, "a <mask> and a <mask>").stdout
    alone = [float(x) for x in shell("embed", mlm, "a film", "--normalise").stdout.split("\t")]
    lines = shell("embed", mlm, "--normalise", "--json", stdin="a film\na long and good film\n").stdout.splitlines()
    vectors = [json.loads(line)["vector"] for line in lines]
    assert len(vectors) == 2 and np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert vectors[0] == pytest.approx(alone, abs=1e-4) and np.abs(np.subtract(*vectors)).max() > 1e-2


def test_a_classifier_begins_with_a_masked_language_model(place: Place, mlm: str) -> None:
    shell, _ = place
    said = train(shell, "labels", "--data", "reviews.csv", "--init", mlm, "--out", "runs/begun", "--training.steps", "30",
                 "--training.batch-tokens", "200", "--training.layer-decay", "0.8", "--training.freeze", "embed.*")  # fmt: skip
    assert "taken over" in said and "parameters stay as they are" in said
    wrong = shell("train", "labels", "--data", "reviews.csv", "--init", "runs/nowhere", "--out", "runs/none")
    assert wrong.returncode == 3 and "runs/nowhere" in wrong.stderr


def test_tags(place: Place) -> None:
    shell, _ = place
    train(shell, "tags", "--data", "names.conll", "--out", "runs/tags", "--training.steps", "80", "--data.vocab-size", "300",
          "--training.batch-tokens", "200", "--training.metric", "f1", "--data.holdout", "0.2", "--training.lr", "3e-3")  # fmt: skip
    result = json.loads(shell("evaluate", "runs/tags", "--json").stdout)
    assert result["f1"] == 1 and result["accuracy"] == 1
    assert shell("classify", "runs/tags", "Eve left Oslo").stdout == "Eve/B-PER left Oslo/B-LOC\n"
    words = json.loads(shell("classify", "runs/tags", "Eve left Oslo", "--json").stdout)["words"]
    assert [word["tag"] for word in words] == ["B-PER", "O", "B-LOC"]


def test_images_of_a_folder(place: Place, images: str) -> None:
    shell, _ = place
    assert json.loads(shell("evaluate", images, "--json").stdout)["accuracy"] == 1
    assert shell("classify", images, "photos/light/3.png").stdout.startswith("light ")
    missing = shell("classify", images, "photos/none.png")
    assert missing.returncode == 3 and "none.png" in missing.stderr


def test_prompts_are_answered(place: Place, asked: str) -> None:
    shell, _ = place
    assert json.loads(shell("evaluate", asked, "--json").stdout)["exact_match"] > 0.9
    assert json.loads(shell("generate", asked, "say film", "--json").stdout)["text"] == "FILM"


@pytest.mark.reference
def test_transformers_asks_as_we_do(place: Place, asked: str) -> None:
    """With the chat template of the folder `transformers` answers as we do."""
    transformers = pytest.importorskip("transformers")
    where = place[1] / asked / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    model = transformers.AutoModelForCausalLM.from_pretrained(where)
    messages = [{"role": "user", "content": "say film"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).replace(" ", "") == "FILM"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("classify", "runs/mlm", "a"), "cannot classify: it is a bert made for words"),
        (("fill", "runs/mlm", "no mask here"), "put <mask> where"),
        (("fill", "runs/labels", "a <mask>"), "cannot fill: it is a bert made for labels"),
        (("embed", "runs/images", "a"), "cannot embed: it is a vit"),
        (("generate", "runs/labels", "a"), "bert"),
        (("train", "labels"), "needs training data"),
        (("train", "labels", "--data", "text.txt"), "text.txt"),
        (("train", "mlm", "--data", "text.txt", "--training.metric", "bleu"), "not for the task"),
        (
            ("train", "labels", "--data", "reviews.csv", "--training.freeze", "stack.blok.*", "--out", "runs/no"),
            "did you mean",
        ),
    ],
)
def test_what_cannot_be_is_said(
    place: Place, words: tuple[str, ...], says: str, request: pytest.FixtureRequest
) -> None:
    for name in ("mlm", "labels", "images"):
        if f"runs/{name}" in words:
            request.getfixturevalue(name)
    ran = place[0](*words)
    assert ran.returncode in (2, 3) and says in ran.stderr, ran.stderr
