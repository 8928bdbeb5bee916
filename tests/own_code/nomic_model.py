"""NomicBERT: GPT-2's names in its configuration, rotary positions on demand, SwiGLU, experts in every second layer."""

import torch
from torch import nn
from transformers import GPT2Config
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.modeling_utils import PreTrainedModel


class NomicBertConfig(GPT2Config):
    model_type = "nomic_bert"

    def __init__(
        self,
        type_vocab_size=2,
        rotary_emb_fraction=1.0,
        rotary_emb_base=1000,
        num_experts=0,
        moe_every_n_layers=0,
        moe_top_k=2,
        qkv_proj_bias=False,
        mlp_fc1_bias=False,
        **kwargs,
    ):
        self.type_vocab_size = type_vocab_size
        self.rotary_emb_fraction = rotary_emb_fraction
        self.rotary_emb_base = rotary_emb_base
        self.num_experts = num_experts
        self.moe_every_n_layers = moe_every_n_layers
        self.moe_top_k = moe_top_k
        self.qkv_proj_bias = qkv_proj_bias
        self.mlp_fc1_bias = mlp_fc1_bias
        super().__init__(**kwargs)


def apply_rotary(x, cos, sin):
    width = cos.shape[-1] * 2
    cos = torch.cat([cos, cos], dim=-1)[None, :, None]
    sin = torch.cat([sin, sin], dim=-1)[None, :, None]
    first, second = x[..., :width].chunk(2, dim=-1)
    return torch.cat([x[..., :width] * cos + torch.cat((-second, first), dim=-1) * sin, x[..., width:]], dim=-1)


class NomicBertRotaryEmbedding(nn.Module):
    def __init__(self, dim, base):
        super().__init__()
        self.dim, self.base = dim, base
        self._seq_len_cached = 0
        self._cos_cached = None
        self._sin_cached = None

    def _update_cos_sin_cache(self, seqlen, device, dtype):
        if seqlen > self._seq_len_cached or self._cos_cached is None:
            self._seq_len_cached = seqlen
            inv_freq = 1.0 / (
                self.base ** (torch.arange(0, self.dim, 2, device=device, dtype=torch.float32) / self.dim)
            )
            frequencies = torch.outer(torch.arange(seqlen, device=device, dtype=torch.float32), inv_freq)
            self._cos_cached = torch.cos(frequencies).to(dtype)
            self._sin_cached = torch.sin(frequencies).to(dtype)

    def forward(self, qkv):
        seqlen = qkv.shape[1]
        self._update_cos_sin_cache(seqlen, qkv.device, qkv.dtype)
        cos, sin = self._cos_cached[:seqlen], self._sin_cached[:seqlen]
        return torch.stack(
            (apply_rotary(qkv[:, :, 0], cos, sin), apply_rotary(qkv[:, :, 1], cos, sin), qkv[:, :, 2]), 2
        )


class NomicBertAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.n_head
        self.head_dim = config.n_embd // config.n_head
        self.Wqkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_proj_bias)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.qkv_proj_bias)
        self.rotary_emb = NomicBertRotaryEmbedding(
            int(self.head_dim * config.rotary_emb_fraction), config.rotary_emb_base
        )

    def forward(self, hidden_states, attention_mask):
        rows, length, hidden = hidden_states.shape
        qkv = self.Wqkv(hidden_states).view(rows, length, 3, self.num_heads, self.head_dim)
        query, key, value = self.rotary_emb(qkv).permute(0, 3, 2, 1, 4).unbind(dim=2)
        scores = torch.matmul(query, key.transpose(-1, -2)) / self.head_dim**0.5
        probabilities = nn.functional.softmax(scores + attention_mask, dim=-1)
        return self.out_proj(torch.matmul(probabilities, value).transpose(1, 2).reshape(rows, length, hidden))


class NomicBertGatedMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc11 = nn.Linear(config.n_embd, config.n_inner, bias=config.mlp_fc1_bias)
        self.fc12 = nn.Linear(config.n_embd, config.n_inner, bias=config.mlp_fc1_bias)
        self.fc2 = nn.Linear(config.n_inner, config.n_embd, bias=config.mlp_fc1_bias)

    def forward(self, x):
        return self.fc2(self.fc11(x) * nn.functional.silu(self.fc12(x)))


class NomicRouter(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.moe_top_k = config.moe_top_k
        self.layer = nn.Linear(config.n_embd, config.num_experts, bias=False)

    def forward(self, x):
        weights = self.layer(x.view(-1, x.shape[-1])).softmax(dim=-1, dtype=torch.float32)
        top_weights, top_experts = torch.topk(weights, self.moe_top_k, dim=-1)
        return top_weights.to(x.dtype), top_experts


class NomicExpertMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_experts, self.hidden_size, self.ffn_hidden_size = config.num_experts, config.n_embd, config.n_inner
        self.w1 = nn.Parameter(torch.empty(config.num_experts * config.n_inner, config.n_embd))
        self.w2 = nn.Parameter(torch.empty(config.num_experts * config.n_inner, config.n_embd))

    def forward(self, x, expert_idx):
        expert_w1 = self.w1.view(self.num_experts, self.ffn_hidden_size, self.hidden_size)[expert_idx]
        expert_w2 = self.w2.view(self.num_experts, self.ffn_hidden_size, self.hidden_size)[expert_idx]
        return nn.functional.gelu(x.matmul(expert_w1.t())).matmul(expert_w2)


class NomicExperts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_experts = config.num_experts
        self.mlp = NomicExpertMLP(config)
        self.bias = nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, x, top_weights, top_experts):
        rows, length, hidden = x.shape
        x = x.view(-1, hidden)
        out = torch.zeros_like(x)
        expert_mask = nn.functional.one_hot(top_experts, num_classes=self.num_experts).permute(2, 1, 0)
        for expert_idx in range(self.num_experts):
            topk_idx, token_idx = torch.where(expert_mask[expert_idx])
            if token_idx.shape[0] == 0:
                continue
            token_list = token_idx.tolist()
            topk_list = topk_idx.tolist()
            expert_tokens = x[None, token_list].reshape(-1, hidden)
            expert_out = self.mlp(expert_tokens, expert_idx) * top_weights[token_list, topk_list, None]
            out.index_add_(0, token_idx, expert_out)
        return out.reshape(rows, length, hidden) + self.bias


class NomicMoELayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.router = NomicRouter(config)
        self.experts = NomicExperts(config)

    def forward(self, x):
        return self.experts(x, *self.router(x))


class NomicBertBlock(nn.Module):
    def __init__(self, config, moe):
        super().__init__()
        self.attn = NomicBertAttention(config)
        self.mlp = NomicMoELayer(config) if moe else NomicBertGatedMLP(config)
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, hidden_states, attention_mask):
        hidden_states = self.norm1(self.attn(hidden_states, attention_mask) + hidden_states)
        return self.norm2(self.mlp(hidden_states) + hidden_states)


class NomicBertEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.n_embd, padding_idx=config.pad_token_id)
        self.type_vocab_size = config.type_vocab_size
        if self.type_vocab_size > 0:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.n_embd)

    def forward(self, input_ids, token_type_ids=None):
        embeddings = self.word_embeddings(input_ids)
        if self.type_vocab_size > 0:
            if token_type_ids is None:
                token_type_ids = torch.zeros(input_ids.shape[1], dtype=torch.long, device=input_ids.device)
            embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        return embeddings


class NomicBertEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        every = config.moe_every_n_layers
        self.layers = nn.ModuleList(
            [NomicBertBlock(config, every > 0 and layer % every == 1) for layer in range(config.n_layer)]
        )

    def forward(self, hidden_states, attention_mask):
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return hidden_states


class NomicBertModel(PreTrainedModel):
    config_class = NomicBertConfig
    base_model_prefix = "model"

    def __init__(self, config, add_pooling_layer=False):
        super().__init__(config)
        self.embeddings = NomicBertEmbeddings(config)
        self.emb_ln = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.encoder = NomicBertEncoder(config)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, NomicExpertMLP):
            nn.init.normal_(module.w1, std=self.config.initializer_range)
            nn.init.normal_(module.w2, std=self.config.initializer_range)

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        hidden_states = self.emb_ln(self.embeddings(input_ids, token_type_ids))
        mask = (1.0 - attention_mask[:, None, None].to(hidden_states.dtype)) * torch.finfo(hidden_states.dtype).min
        hidden_states = self.encoder(hidden_states, mask)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=hidden_states)
