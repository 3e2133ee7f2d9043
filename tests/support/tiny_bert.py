"""A random BERT with a WordPiece tokenizer, small enough to build in every test."""

from pathlib import Path

HIDDEN = 12
LAYERS = 2
POSITIONS = 48
WORDS = ["the", "cat", "play", "##ing", "##s", "it", "'", "is", "café", "cafe", "42"]
CHINESE = list("你好世界今天气很")


def build_tiny_bert(folder: Path, lowercase: bool = True, seed: int = 0) -> str:
    """Write a BERT encoder (2 layers, 12 dimensions, 48 positions) to ``folder``.

    The vocabulary holds some words, English letters with and without ##, digits and
    eight Chinese characters; ``lowercase`` also strips accents, as uncased models do.
    """
    import torch
    from tokenizers import (
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    if not lowercase:
        letters += [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "THE", "CAT"]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = names + WORDS + CHINESE + letters + [f"##{c}" for c in [*letters, "'"]]
    vocab = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
    )
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=POSITIONS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return str(folder)
