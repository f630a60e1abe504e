"""One setting, ``model_type``, decides every text around what people and the model say; contradictions are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer
from video_llama.cli.main import main
from video_llama.common.errors import ConfigError
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.templates import BILLA, LLAMA_2, VICUNA, ZIYA, Template

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chatty(decoder: Path, tmp_path: Path) -> Path:
    """A decoder folder whose tokenizer is not LLaMA's and brings a chat template."""
    shutil.copytree(decoder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tokenizer*"))
    return write_fast_tokenizer(tmp_path, "<|im_start|>", "<|im_end|>", chat=CHAT, eos_token="<|eos|>")


def problems(folder: Path, **settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        VideoLLaMA.sample_spec(tiny.config(folder, **settings))
    return caught.value.problems


@pytest.mark.parametrize(
    ("model_type", "template"),
    [
        *(("pretrain_vicuna", VICUNA), ("vicuna", VICUNA), ("pretrain_llama_v2", LLAMA_2), ("llama_v2", LLAMA_2)),
        *(("ziya", ZIYA), ("billa", BILLA)),
    ],
)
def test_the_model_type_decides_template_end_symbol_and_caption_text(
    decoder: Path, model_type: str, template: Template
) -> None:
    context = VideoLLaMA.sample_spec(tiny.config(decoder, model_type=model_type))
    assert (context.template, context.label_mask) == (template, "answers")
    assert context.caption_prompts == (template.caption.replace("{}", "<ImageHere>"),)


def test_auto_takes_them_from_the_tokenizer(chatty: Path) -> None:
    context = VideoLLaMA.sample_spec(tiny.config(chatty, model_type="auto"))
    assert context.template.end_sym == "<|im_end|>"
    assert context.caption_prompts == ("<|im_start|>user\n<ImageHere><|im_end|>\n<|im_start|>assistant\n",)


def test_the_published_keys_around_captions_stay_valid(decoder: Path, chatty: Path) -> None:
    around = "Look: {} Caption: "
    for folder, settings in ((decoder, {"end_sym": "###"}), (chatty, {"model_type": "auto"})):
        context = VideoLLaMA.sample_spec(tiny.config(folder, prompt_template=around, **settings))
        assert context.caption_prompts == ("Look: <ImageHere> Caption: ",)


@pytest.mark.parametrize("model_type", ["llama_v2", "pretrain_llama_v2", "ziya", "billa"])
def test_an_end_symbol_that_is_not_the_tokenizers_end_token_is_refused(chatty: Path, model_type: str) -> None:
    (problem,) = problems(chatty, model_type=model_type)
    assert problem == (
        f"model.model_type: answers under {model_type} end with '</s>', but the end token of {chatty} is '<|eos|>'. "
        "Choose auto, if it has a chat template, or vicuna."
    )


def test_vicuna_works_with_any_tokenizer(chatty: Path) -> None:
    assert VideoLLaMA.sample_spec(tiny.config(chatty, model_type="vicuna")).template.end_sym == "###"


def test_auto_without_a_chat_template_is_refused(decoder: Path) -> None:
    (problem,) = problems(decoder, model_type="auto")
    assert problem.startswith(f"model.model_type: auto, but the tokenizer of {decoder} has no chat template. Choose ")


def test_under_auto_too_a_prompt_template_of_another_decoder_is_refused(chatty: Path) -> None:
    (problem,) = problems(chatty, model_type="auto", prompt_template="###Human: {} ###Assistant: ")
    assert problem.startswith("model.prompt_template: holds '###', which belongs to model_type vicuna.")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"model_type": "llama_v2", "prompt_template": "###Human: {} ###Assistant: "},
            "prompt_template: holds '###', which belongs to model_type vicuna. Leave it out, or change model_type.",
        ),
        (
            {"prompt_template": "[INST] {} [/INST] "},
            "prompt_template: holds '[INST]', which belongs to model_type llama_v2. Leave it out, or change model_type.",
        ),
        (
            {"model_type": "ziya", "end_sym": "###"},
            "end_sym: '###' contradicts model_type ziya, whose answers end with '</s>'. Leave end_sym out, or change "
            "model_type.",
        ),
        (
            {"model_type": "auto", "end_sym": "</s>"},
            "end_sym: '</s>', but model_type auto takes it from the tokenizer. Leave end_sym out.",
        ),
        *(
            (
                {"model_type": model_type, "label_mask": "original"},
                f"label_mask: original, but the original had no template {model_type}. Leave label_mask out.",
            )
            for model_type in ("auto", "ziya", "billa")
        ),
    ],
)
def test_what_contradicts_the_model_type_is_named_without_the_tokenizer(
    tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    config = tiny.config(tmp_path, vit_ckpt="v", q_former_model="q", **settings)
    found = [*config.check(), *config.check_training()]
    assert [f"{key}: {message}" for key, message in found] == [problem]


@pytest.mark.parametrize("model_type", ["vicuna", "llama_v2"])
def test_the_originals_label_mask_needs_one_of_its_templates(decoder: Path, model_type: str) -> None:
    config = tiny.config(decoder, model_type=model_type, label_mask="original", vit_ckpt="v", q_former_model="q")
    assert list(config.check()) == []
    assert VideoLLaMA.sample_spec(config).label_mask == "original"


# --- The decoder's own chat template beside a chosen one

INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
HUMAN = (
    "{% for m in messages %}{% if m.role == 'user' %}###Human: {{ m.content }}{% else %}###Assistant: {{ m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}###Assistant:{% endif %}"
)
BOT = (
    "{% for m in messages %}{% if m.role == 'user' %}<human>:{{ m.content }}\n{% else %}<bot>:{{ m.content }}</s>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<bot>:{% endif %}"
)
FAILS = "{{ raise_exception('no') }}{# [/INST] [INST] #}"


def llama_with(decoder: Path, folder: Path, chat: str) -> Path:
    shutil.copytree(decoder, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(chat)
    return folder


@pytest.mark.parametrize(
    ("chat", "model_type", "said"),
    [
        (INST, "llama_v2", None),
        (INST, "pretrain_llama_v2", None),
        (INST, "auto", None),
        (INST, "pretrain_vicuna", "pretrain_vicuna writes '###Assistant:' and '###Human:' after questions and answers"),
        (INST, "vicuna", "writes '[/INST]' and '[INST]'. Choose pretrain_llama_v2|llama_v2, unless the branch"),
        (INST, "ziya", "ziya writes '<bot>:' and '<human>:'"),
        (HUMAN, "vicuna", None),
        (HUMAN, "llama_v2", "writes '###Assistant:' and '###Human:'. Choose pretrain_vicuna|vicuna, unless"),
        (BOT, "ziya", None),
        (BOT, "billa", "billa writes 'Assistant:' and 'Human:'"),
        (CHAT, "llama_v2", "'<|im_end|><|im_start|>assistant' and '<|im_end|><|im_start|>user'. Choose auto, unless"),
        (FAILS, "llama_v2", None),
        (FAILS, "vicuna", "vicuna writes '###Assistant:', which the chat template of"),
    ],
)
def test_a_model_type_that_differs_from_the_decoders_own_template_is_reported(
    decoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, chat: str, model_type: str, said: str | None
) -> None:
    folder = llama_with(decoder, tmp_path, chat)
    VideoLLaMA.sample_spec(tiny.config(folder, model_type=model_type))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (said is not None)
    if said is None:
        VideoLLaMA.sample_spec(tiny.config(folder, model_type=model_type, strict_template=True))
        return
    assert said in messages[0]
    assert problems(folder, model_type=model_type, strict_template=True) == messages


def test_a_tokenizer_of_another_family_has_a_template_of_its_own_too(
    chatty: Path, caplog: pytest.LogCaptureFixture
) -> None:
    VideoLLaMA.sample_spec(tiny.config(chatty, model_type="vicuna"))
    (record,) = caplog.records
    assert record.getMessage().startswith("model.model_type: vicuna writes '###Assistant:' and '###Human:'")


def test_a_decoder_without_a_chat_template_fits_every_model_type(
    decoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for model_type in ("vicuna", "llama_v2", "ziya", "billa"):
        VideoLLaMA.sample_spec(tiny.config(decoder, model_type=model_type, strict_template=True))
    assert not caplog.records


@pytest.mark.parametrize("setting", ["text", "original"])
def test_the_setting_of_special_tokens_in_texts_reaches_the_tokenizer(decoder: Path, setting: str) -> None:
    tokenizer = VideoLLaMA.sample_spec(tiny.config(decoder, literal_special_tokens=setting)).tokenizer
    ids = [token.id for token in tokenizer.encode("a </s>", literal=[(0, 6)])]
    assert (tokenizer.eos_id in ids) == (setting == "original")


def test_check_config_checks_the_template_against_the_tokenizer(
    decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "a.yaml").write_text(
        f"model: {{arch: video_llama, llama_model: {decoder}, freeze_vit: false, vit_precision: fp32, "
        f"freeze_qformer: false, vit_args: {{depth: 2}}, model_type: auto, ckpt: {__file__}}}"
    )
    assert main(["check-config", str(file)]) == 1
    assert capsys.readouterr().err == (
        f"{file}  model.model_type: auto, but the tokenizer of {decoder} has no chat template. "
        "Choose vicuna|llama_v2|ziya|billa.\n"
    )
    assert main(["check-config", str(file), "--options", "model.model_type=ziya"]) == 0
    assert main(["check-config", str(file), "--options", "model.llama_model=???"]) == 0
