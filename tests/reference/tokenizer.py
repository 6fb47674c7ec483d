"""A small tokenizer of the same kind as CLIP's: byte-level BPE with `</w>` at word ends."""

from collections import Counter

from tokenizers import normalizers, pre_tokenizers
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
    """The most frequent pairs, one after another. The trainer of `tokenizers` breaks ties
    differently in each run; here the smaller pair wins."""
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    text = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]).normalize_str(CORPUS)
    words = Counter(word for word, _ in split.pre_tokenize_str(text))
    words = [([*word[:-1], word[-1] + "</w>"], count) for word, count in sorted(words.items())]
    found = []
    for _ in range(MERGES):
        pairs = Counter()
        for parts, count in words:
            for pair in zip(parts, parts[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for parts, _ in words:
            at = 0
            while at + 1 < len(parts):
                if (parts[at], parts[at + 1]) == best:
                    parts[at : at + 2] = ["".join(best)]
                at += 1
    return found


def make(specials_last, pad_token):
    """Bytes, bytes at word ends, merges; the two special tokens last, as in CLIP, or before the
    merges, so that the end of text is not the largest id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    pairs = merges()
    specials = ["<|startoftext|>", "<|endoftext|>"]
    merged = list(dict.fromkeys("".join(pair) for pair in pairs))
    tokens += merged + specials if specials_last else specials + merged
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad_token)
