"""The towers of the built-in model in PyTorch, and one step of training them."""

import torch
from torch import nn
from torch.nn import functional

SIDE = 64
VOCABULARY = 514
TOKENS = 8
CONTEXT = 32
DIM = 128


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for outputs in [24, 48]:
            layers += [nn.Conv2d(channels, outputs, 3, 2, 1, bias=False),
                       nn.BatchNorm2d(outputs), nn.ReLU()]
            channels = outputs
        for stage, outputs in enumerate([48, 96, 192]):
            for block in range(2):
                layers.append(Block(channels, outputs, 2 if stage > 0 and block == 0 else 1))
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(16 * channels, 256), nn.LayerNorm(256))
        self.projection = nn.Linear(256, DIM, bias=False)

    def forward(self, x):
        return self.projection(self.head(self.layers(x).flatten(1)))


class TextBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x):
        n, t, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        hidden = self.fc1(self.norm2(x))
        return x + self.fc2(hidden * torch.sigmoid(1.702 * hidden))


class Texts(nn.Module):
    def __init__(self, width=192, layers=3, heads=3):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(CONTEXT, width) * 0.01)
        self.blocks = nn.Sequential(*(TextBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, DIM, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        return self.projection(self.norm(self.blocks(x)[:, -1]))


class Training:
    """Steps on the same random batch, as the loader costs PyTorch nothing here."""

    def __init__(self, batch, bf16):
        torch.manual_seed(7)
        self.images, self.texts = Images().train(), Texts().train()
        # What oneDNN is fastest with.
        self.images = self.images.to(memory_format=torch.channels_last)
        self.scale = nn.Parameter(torch.tensor(2.659))
        weights = [*self.images.parameters(), *self.texts.parameters(), self.scale]
        self.weights = weights
        self.optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.1, fused=True)
        pixels = torch.rand(batch, 3, SIDE, SIDE) * 2 - 1
        self.pixels = pixels.to(memory_format=torch.channels_last)
        self.ids = torch.randint(0, VOCABULARY, (batch, TOKENS))
        self.labels = torch.arange(batch)
        self.bf16 = bf16

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            images = functional.normalize(self.images(self.pixels).float())
            texts = functional.normalize(self.texts(self.ids).float())
        logits = images @ texts.T * self.scale.exp()
        loss = (functional.cross_entropy(logits, self.labels)
                + functional.cross_entropy(logits.T, self.labels)) / 2
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        return loss.item()
