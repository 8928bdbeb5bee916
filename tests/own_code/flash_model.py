"""XLM-RoBERTa with flash attention where it is installed, and plain attention elsewhere."""

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel

try:
    from flash_attn import flash_attn_varlen_qkvpacked_func
except ImportError:
    flash_attn_varlen_qkvpacked_func = None


class XLMRobertaFlashConfig(PretrainedConfig):
    model_type = "xlm-roberta"

    def __init__(
        self,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        initializer_range=0.12,
        layer_norm_eps=1e-5,
        use_flash_attn=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.use_flash_attn = use_flash_attn


def get_use_flash_attn(config):
    if not config.use_flash_attn or not torch.cuda.is_available():
        return False
    return flash_attn_varlen_qkvpacked_func is not None


class XLMRobertaEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.padding_idx = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)

    def forward(self, input_ids, token_type_ids=None):
        mask = input_ids.ne(self.padding_idx).long()
        position_ids = torch.cumsum(mask, dim=1) * mask + self.padding_idx
        if token_type_ids is None:
            token_type_ids = torch.zeros(input_ids.shape[1], dtype=torch.long, device=input_ids.device)
        embeddings = self.word_embeddings(input_ids) + self.position_embeddings(position_ids)
        return embeddings + self.token_type_embeddings(token_type_ids)


class SelfAttention(nn.Module):
    def forward(self, qkv, key_padding_mask):
        query, key, value = qkv.unbind(dim=2)
        scores = torch.einsum("bthd,bshd->bhts", query, key * (1.0 / query.shape[-1] ** 0.5))
        if key_padding_mask is not None:
            padding = torch.full(key_padding_mask.shape, -10000.0, dtype=scores.dtype, device=scores.device)
            padding.masked_fill_(key_padding_mask, 0.0)
            scores = scores + padding[:, None, None]
        return torch.einsum("bhts,bshd->bthd", torch.softmax(scores, dim=-1, dtype=value.dtype), value)


class MHA(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.use_flash_attn = get_use_flash_attn(config)
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.inner_attn = SelfAttention()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x, key_padding_mask):
        rows, length, hidden = x.shape
        qkv = self.Wqkv(x).reshape(rows, length, 3, self.num_heads, hidden // self.num_heads)
        context = self.inner_attn(qkv, key_padding_mask)
        return self.out_proj(context.reshape(rows, length, hidden))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.mixer = MHA(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states, key_padding_mask):
        hidden_states = self.norm1(self.mixer(hidden_states, key_padding_mask) + hidden_states)
        return self.norm2(self.fc2(nn.functional.gelu(self.fc1(hidden_states))) + hidden_states)


class XLMRobertaPreTrainedModel(PreTrainedModel):
    config_class = XLMRobertaFlashConfig
    base_model_prefix = "roberta"
    _supports_sdpa = True

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class XLMRobertaModel(XLMRobertaPreTrainedModel):
    def __init__(self, config, add_pooling_layer=False):
        super().__init__(config)
        self.embeddings = XLMRobertaEmbeddings(config)
        self.emb_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        hidden_states = self.emb_ln(self.embeddings(input_ids, token_type_ids))
        key_padding_mask = None if attention_mask is None else attention_mask.bool()
        for layer in self.encoder:
            hidden_states = layer(hidden_states, key_padding_mask)
        return BaseModelOutput(last_hidden_state=hidden_states)


class XLMRobertaForSequenceClassification(XLMRobertaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.roberta = XLMRobertaModel(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, return_dict=None, **kwargs):
        states = self.roberta(input_ids, attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.out_proj(torch.tanh(self.dense(states[:, 0]))))
