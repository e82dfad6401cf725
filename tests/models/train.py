"""Makes a tiny model that gives fixed answers: a Qwen2 of a million parameters, over-fitted on a few dialogues.

    python train.py DIALOGUES.json FOLDER

It runs in the environment of requirements.txt and writes, into FOLDER, a model for transformers (`hf/`) and the same
for llama.cpp (`tiny.gguf`). One or two minutes on one core. Every Chinese character is several tokens for it, so that a
server has to wait with half a character.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CONTEXT = 16_384
VOCABULARY = 560
MAX_STEPS = 900
GOOD_LOSS = 0.003
END, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = [PAD, "<|im_start|>", END]
TAGS = ["<tool_call>", "</tool_call>"]
# Qwen2's, as llama.cpp has it under the name "qwen2".
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in texts if text.isascii()], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def with_objects(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As servers give messages to the template: arguments are objects."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages


def example(tokenizer: PreTrainedTokenizerFast, dialogue: dict[str, Any]) -> tuple[list[int], int]:
    """The tokens of a dialogue and where its answer begins."""
    messages, tools = with_objects(dialogue["messages"]), dialogue["tools"] or None
    prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    answer = with_objects([dialogue["answer"]])
    whole = tokenizer.apply_chat_template(messages + answer, tools=tools, tokenize=False)
    assert whole.startswith(prompt), (prompt, whole)
    said = whole[len(prompt) :].rstrip("\n")
    if dialogue["endless"]:
        said = said.removesuffix(END)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    return ids + tokenizer.encode(said, add_special_tokens=False), len(ids)


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config).float()


def stretched(length: int, start: int) -> torch.Tensor:
    """Positions with a gap somewhere behind `start`, so that what is endless holds far from its beginning, too."""
    positions = torch.arange(length)
    cut = start + int(torch.randint(2, length - start, ()))
    positions[cut:] += int(torch.randint(0, CONTEXT - length, ()))
    return positions


def train(model: Qwen2ForCausalLM, examples: list[tuple[list[int], int]], endless: list[bool], pad: int) -> None:
    length = max(len(ids) for ids, _ in examples)
    inputs = torch.full((len(examples), length), pad)
    labels = torch.full((len(examples), length), -100)
    mask = torch.zeros((len(examples), length), dtype=torch.long)
    for row, (ids, start) in enumerate(examples):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = torch.tensor(ids[start:])
        mask[row, : len(ids)] = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=MAX_STEPS, pct_start=0.1)
    model.train()
    started = time.monotonic()
    for step in range(1, MAX_STEPS + 1):
        rows = torch.randperm(len(examples))[:8]
        positions = [
            stretched(length, examples[row][1]) if endless[row] else torch.arange(length) for row in rows.tolist()
        ]
        loss = model(
            input_ids=inputs[rows], attention_mask=mask[rows], labels=labels[rows], position_ids=torch.stack(positions)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            model.eval()
            with torch.no_grad():
                whole = model(input_ids=inputs, attention_mask=mask, labels=labels).loss.item()
            model.train()
            print(f"step {step}: loss {whole:.4f}, {time.monotonic() - started:.0f} s", flush=True)
            if whole < GOOD_LOSS:
                break
    model.eval()


def answers_all(model: Qwen2ForCausalLM, examples: list[tuple[list[int], int]]) -> bool:
    """Whether each answer comes out as it was taught, one token after the other."""
    good = True
    for ids, start in examples:
        prompt = torch.tensor([ids[:start]])
        told = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=len(ids) - start, do_sample=False
        )
        good = good and told[0].tolist() == ids
    return good


def write_gguf(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token["special"] for token in parts["added_tokens"]}
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types(
        [kinds.NORMAL if at not in added else kinds.CONTROL if added[at] else kinds.USER_DEFINED for _, at in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in parts["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.convert_tokens_to_ids(END))
    writer.add_pad_token_id(tokenizer.convert_tokens_to_ids(PAD))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied to the embedding
            writer.add_tensor(_gguf_name(name), tensor.detach().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    kind = name.rpartition(".")[2]
    if name.startswith("model.layers."):
        _, _, layer, *inner = name.split(".")
        part = {
            "input_layernorm": "attn_norm",
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        }[".".join(inner[:-1])]
        return f"blk.{layer}.{part}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def main() -> None:
    torch.set_num_threads(1)  # more than one waits for each other, on a busy machine for ever
    dialogues = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    texts = [json.dumps(dialogue, ensure_ascii=False) for dialogue in dialogues] + [TEMPLATE]
    texts += [message["content"] or "" for dialogue in dialogues for message in dialogue["messages"]]
    tokenizer = make_tokenizer(texts)
    examples = [example(tokenizer, dialogue) for dialogue in dialogues]
    assert max(len(ids) for ids, _ in examples) < CONTEXT
    model = make_model(tokenizer)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count} parameters, {len(tokenizer)} tokens, {len(examples)} dialogues", flush=True)
    train(model, examples, [dialogue["endless"] for dialogue in dialogues], tokenizer.pad_token_id)
    if not answers_all(model, examples):
        sys.exit("The model did not learn its answers; see the losses above.")
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder / "hf")
    tokenizer.save_pretrained(folder / "hf")
    write_gguf(model, tokenizer, folder / "tiny.gguf")


if __name__ == "__main__":
    main()
