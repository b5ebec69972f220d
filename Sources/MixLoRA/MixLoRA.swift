// One import for everything: `import MixLoRA`.
@_exported import CPUBackend
@_exported import CUDABackend
@_exported import Checkpoints
@_exported import Collectives
@_exported import Comparison
@_exported import Conformance
@_exported import Decoders
@_exported import Evaluation
@_exported import Explaining
@_exported import Generation
@_exported import Layers
@_exported import Samples
@_exported import Stepping
@_exported import Tensors
@_exported import Tokenization
@_exported import Traces
@_exported import Training
