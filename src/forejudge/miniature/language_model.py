"""The language model of the miniature's verifier: a small Qwen2 with its own tokenizer and chat template."""

from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

QUESTION = "<image> does this show {prompt}? answer yes or no"


def new_language_model(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> Qwen2ForCausalLM:
    """An untrained model over the tokenizer's vocabulary; `width` is a multiple of 32."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            num_key_value_heads=width // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )
