"""The study's ten prompts, in its order."""

PROMPTS = (
    "Hello, how are you?",
    "What is the capital of France?",
    "Explain quantum computing in simple terms.",
    "Write a short story about a robot.",
    "Calculate 15 * 23 =",
    "What are the benefits of renewable energy?",
    "Describe the process of photosynthesis.",
    "What is machine learning?",
    "Tell me a joke.",
    "How does a neural network work?",
)
