"""A small tokenizer of the same kind as CLIP's: byte-level BPE with `</w>` at word ends."""

import json

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

MERGES = 100
CORPUS = """
a photo of a cat. a photo of a dog. a red bicycle on the street. two people are walking in the rain.
the quick brown fox jumps over the lazy dog. a bowl of fruit, apples and oranges, on a wooden table.
don't stop; they're here. it's raining. we'll see. i've seen it. i'm here. he'd go. a drawing of
the sun over the sea. a small house with a red door. a woman riding a horse on the beach. words and
pictures in one space. a caf\u00e9 in paris. stra\u00dfe. a child with a balloon. the moon at night.
"""


def merges():
    """The first merges that training finds, as pairs."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]


def make(specials_last, pad_token):
    """Bytes, bytes at word ends, merges; the two special tokens last, as in CLIP, or before the
    merges, so that the end of text is not the largest id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    pairs = merges()[:MERGES]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    merged = list(dict.fromkeys("".join(pair) for pair in pairs))
    tokens += merged + specials if specials_last else specials + merged
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad_token)
