"""Small tokenizers of the kinds that the families have."""

from collections import Counter

import sentencepiece as spm
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, CLIPTokenizer

MERGES = 100
CORPUS = """
a photo of a cat. a photo of a dog. a red bicycle on the street. two people are walking in the rain.
the quick brown fox jumps over the lazy dog. a bowl of fruit, apples and oranges, on a wooden table.
don't stop; they're here. it's raining. we'll see. i've seen it. i'm here. he'd go. a drawing of
the sun over the sea. a small house with a red door. a woman riding a horse on the beach. words and
pictures in one space. a caf\u00e9 in paris. stra\u00dfe. a child with a balloon. the moon at night.
"""


def merges():
    """The pairs of CLIP's tokenizer: of bytes, with `</w>` at word ends."""
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    text = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]).normalize_str(CORPUS)
    words = Counter(word for word, _ in split.pre_tokenize_str(text))
    words = [([*word[:-1], word[-1] + "</w>"], count) for word, count in sorted(words.items())]
    return most_frequent_pairs(words)


def most_frequent_pairs(words):
    """The most frequent pairs in `words`, lists of parts with their counts, one after another. The
    trainer of `tokenizers` breaks ties differently in each run; here the smaller pair wins."""
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


def make(specials_last, pad_token, alphabet=None):
    """Bytes, bytes at word ends, merges; the two special tokens last, as in CLIP, or before the
    merges, so that the end of text is not the largest id."""
    alphabet = alphabet or sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    pairs = merges()
    specials = ["<|startoftext|>", "<|endoftext|>"]
    merged = list(dict.fromkeys("".join(pair) for pair in pairs))
    tokens += merged + specials if specials_last else specials + merged
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad_token)


def sentencepiece(folder):
    """The kind that SigLIP has: a Unigram model of sentencepiece, written to `folder`, in which end
    of text and padding are one token. Returns its file and the same pieces as a tokenizer of
    `tokenizers`, which cleans no text by itself."""
    file = folder / "spiece.model"
    with file.open("wb") as writer:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(_words(CORPUS).splitlines()), model_writer=writer,
            model_type="unigram", vocab_size=80, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            normalization_rule_name="identity", num_threads=1, minloglevel=2,
        )
    model = spm.SentencePieceProcessor(model_file=str(file))
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    tok = Tokenizer(models.Unigram(pieces, unk_id=2))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tok.add_special_tokens(
        [AddedToken(t, lstrip=True, rstrip=True, normalized=False) for t in ("<unk>", "</s>")]
    )
    return file, tok


def gemma():
    """The kind that SigLIP 2 has: BPE over whole texts, spaces as U+2581, unknown characters as
    bytes."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    words = Counter("\u2581" + word for word in CORPUS.split())
    pairs = most_frequent_pairs([(list(word), count) for word, count in sorted(words.items())])
    tokens += sorted({letter for word in words for letter in word} | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    tokens += list(dict.fromkeys("".join(pair) for pair in pairs))
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    model = models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tok = Tokenizer(model)
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    tok.add_special_tokens(tokens[:5])
    return tok


def wordpiece():
    """The kind that CLIPA has: BERT's."""
    letters = sorted({letter for letter in _words(CORPUS) if not letter.isspace()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "'", ";", *letters]
    tokens += ["##" + letter for letter in letters]
    tokens += [word for word, count in Counter(_words(CORPUS).split()).items() if count > 2 and len(word) > 1]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})


def _words(text):
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter.isspace())
