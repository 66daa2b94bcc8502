"""What PyTorch has and this package lacks: what an unknown name says to whoever asks for it."""

from __future__ import annotations

import functools
import re
import sys
from difflib import get_close_matches

# Names of PyTorch, without "torch." and with * for any characters, then what to use instead. A hint
# that starts with "planned" is about something that is to come; the first row that fits counts.
_TABLE = """
jit fx export package compiler cpp classes ops library
    tracecc.compile traces and compiles functions, modules and whole training steps; .ir() shows
    the graph
*Script* CompilationUnit JITException import_ir_module* parse_ir parse_schema parse_type_comment
merge_type_from_type_comment unify_type_list
    TorchScript is not here: use tracecc.compile
fork wait futures Future
    use concurrent.futures or threads of Python
hub torch_version version typename compiled_with_cxx11_abi types return_types overrides monitor
has_lapack has_mkl has_openmp has_spectral multiprocessing prepare_multiprocessing_environment
utils.backend* utils.backcompat utils.collect_env utils.cmake_prefix_path utils.cpp_backtrace
utils.get_cpp_backtrace utils.generate_methods* utils.rename_privateuse1* utils.hooks utils.weak
utils.set_module utils.throughput_benchmark utils.ThroughputBenchmark utils.deterministic
*handle_torch_function *has_torch_function* is_storage get_file_path init_num_threads USE_*
DisableTorchFunction* nn.functional.assert_int_or_pair nn.utils.rnn.PackedSequence_
nn.utils.rnn.bind signal.windows.windows
    part of PyTorch's own machinery, with no counterpart here
profiler autograd.profiler* autograd.Profiler* autograd.kineto* autograd.DeviceType
utils.bottleneck
    compiled.explain() and compiled.kernels() say where time and memory go;
    tracecc.autograd.detect_anomaly finds NaN
distributed nn.parallel *is_distributed utils.data.distributed
    programs here run in one process; DataLoader and kernels use the threads of
    tracecc.set_num_threads
xpu mps mtia accelerator cpu Stream Event Tensor.record_stream get_device_module
AcceleratorError OutOfMemoryError Tensor.xpu Tensor.mtia Tensor.ipu Tensor.is_ipu Tensor.is_maia
Tensor.is_mtia Tensor.is_vulkan Tensor.is_xla
    tensors live on the CPU; write device="cpu" or leave the device out
cuda.*
    tensors live on the CPU: ask tracecc.cuda.is_available() first
backends.mkl backends.mkldnn backends.openmp backends.opt_einsum
backends.cuda backends.quantized
    tensors live on the CPU, and kernels are compiled for the machine: there is nothing to
    switch
nn.quantized nn.quantizable nn.qat nn.intrinsic ao quantization quantize_* quantized_*
dequantize Tensor.dequantize fake_quantize_* q_scale q_zero_point q_per_channel_* int_repr
qscheme qint* quint* per_tensor* per_channel* choose_qparams* fbgemm* Tensor.q_* Tensor.int_repr
Tensor.qscheme fused_moving_avg* empty_quantized bits* bit int1 int2 int3 int4 int5 int6 int7
uint1 uint2 uint3 uint4 uint5 uint6 uint7 float4* float8*
    no quantised types: use bfloat16 with tracecc.autocast
uint16 uint32 uint64 chalf complex32 Tensor.chalf
    no such dtype: use the next wider one (int32, int64 or complex64)
sparse sparse_* Tensor.to_sparse* *sparse_mask *sparse_resize* *resize_as_sparse_ *sparse_dim
*dense_dim *indices_copy *values_copy Tensor.*indices Tensor.*is_coalesced Tensor.values
Tensor.indices smm sspaddmm hspmm hsmm dsmm saddmm spmm Tensor.smm Tensor.sspaddmm
nn.functional.sparse_support_notes *slice_inverse
    no sparse layouts: use dense tensors, with gather and scatter_add for graphs
nested jagged *to_padded_tensor
    no nested tensors: use nn.utils.rnn.pad_sequence and pack_padded_sequence
onnx
    compiled.ir() is the exchange format here; see ir/README.md
testing.*
    use testing.assert_close
*Storage *storage *storage_type StorageBase TypedStorage UntypedStorage from_file Tensor.set_
    views share memory: use x.data_ptr(), x.storage_offset() and x.stride()
eig Tensor.eig
    use tracecc.linalg.eig
symeig Tensor.symeig
    use tracecc.linalg.eigh
lstsq Tensor.lstsq
    use tracecc.linalg.lstsq
solve Tensor.solve
    use tracecc.linalg.solve
matrix_rank
    use tracecc.linalg.matrix_rank
vander
    use tracecc.linalg.vander
frobenius_norm norm_except_dim native_norm
    use tracecc.linalg.norm
svd_lowrank pca_lowrank lobpcg
    planned; for now use tracecc.linalg.svd or eigh and keep the largest
range
    use tracecc.arange, which leaves out the end
segment_reduce
    use Tensor.scatter_reduce
binomial
    add up tracecc.bernoulli draws
quasirandom
    use scipy.stats.qmc and tracecc.from_numpy
to_dlpack utils.dlpack*
    use tracecc.from_dlpack and x.__dlpack__()
layout legacy_contiguous_format
    there is one layout, tracecc.strided
memory_format *memory_format*
    there is one memory format, tracecc.contiguous_format
convolution conv_tbc nn.functional.conv_tbc cudnn_* miopen_* mkldnn_* *to_mkldnn is_vulkan*
*scaled_mm *grouped_mm *ScalingType *SwizzleType nn.functional.scaled* nn.functional.grouped*
native_channel_shuffle native_dropout nn.functional.native_channel_shuffle batch_norm_*
affine_grid_generator cudnn_is_acceptable
    one library's kernel: use the function of nn.functional without the prefix
batch_norm instance_norm embedding embedding_bag embedding_renorm_
    use tracecc.nn.functional
feature_dropout dropout_ feature_dropout_ feature_alpha_dropout_ alpha_dropout_
    use tracecc.nn.functional.dropout and its kin
gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
    use the layers tracecc.nn.GRU, LSTM, RNN and their cells
*with_indices
    pass return_indices=True to the pooling function
is_autocast_* set_autocast_* get_autocast_* autocast_increment_nesting
autocast_decrement_nesting amp.autocast_mode amp.grad_scaler
    use the context manager tracecc.autocast
sym_* Sym*
    sizes are Python ints, and inside a compiled function may stand for any size
detach_copy slice_copy indices_copy view_as_complex_copy view_as_real_copy *as_strided_
    use the function without the last part of its name, then clone()
nn.Container
    use nn.Module
nn.NLLLoss2d
    use nn.NLLLoss
nn.CrossMapLRN2d
    use nn.LocalResponseNorm
nn.LinearCrossEntropy*
    use nn.Linear and nn.CrossEntropyLoss
*Uninitialized* nn.parameter.is_lazy
    use the Lazy layers, such as nn.LazyLinear
nn.init.constant nn.init.dirac nn.init.eye nn.init.kaiming_* nn.init.normal nn.init.orthogonal
nn.init.sparse nn.init.uniform nn.init.xavier_*
    use the name with an underscore at its end
nn.utils.clip_grad nn.utils.clip_grad_norm
    use nn.utils.clip_grad_norm_
nn.utils.convert_parameters nn.utils.stateless* nn.utils.init
    use the functions of tracecc.nn.utils and tracecc.func.functional_call
nn.utils.parametrize.transfer_parametrizations_and_params
    use nn.utils.parametrize.register_parametrization and remove_parametrizations
nn.attention nn.factory_kwargs nn.common_types nn.grad nn.functional.grad
    use nn.functional.scaled_dot_product_attention and tracecc.autograd.grad
optim.swap_in* utils.swap_tensors
    assign Parameters, or use Module.load_state_dict
linalg.ldl_factor
    use linalg.lu_factor
linalg.ldl_factor_ex
    use linalg.lu_factor_ex
linalg.ldl_solve
    use linalg.lu_solve
autograd.Variable Variable autograd.variable
    tensors take part in autograd themselves: use tracecc.tensor(.., requires_grad=True)
autograd.forward_ad
    use tracecc.func.jvp
autograd.graph autograd.SavedTensor autograd.NestedIOFunction
    use Tensor.grad_fn and tracecc.autograd.Function
autograd.anomaly_mode autograd.grad_mode autograd.enforce_grad_layout_policy
autograd.is_tensor_like autograd.is_view_replay_enabled autograd.*_multithreading_enabled
    use tracecc.autograd.grad, no_grad, enable_grad and set_grad_enabled
func.functionalize func.debug_unwrap func.rearrange
    tracecc.compile turns in-place writes into updates of the graph by itself
utils.tensorboard utils.mobile_optimizer utils.model_zoo utils.cpp_extension
    not part of this package
utils.data.*DataPipe utils.data.*datapipe* utils.data.*_validation* utils.data.non_deterministic
utils.data.graph* utils.data.DataChunk utils.data.dataloader
    use Dataset, IterableDataset and DataLoader
Tensor.apply_ Tensor.map_ Tensor.map2_
    write the function with tensor operations, or go through x.numpy()
Tensor.resize Tensor.resize_as
    use resize_ or reshape
Tensor.new
    use new_tensor, new_empty or new_zeros
Tensor.reinforce Tensor.volatile
    use detach() and no_grad()
Tensor.prelu Tensor.hardshrink
    use the function of nn.functional
Tensor.grad_dtype Tensor.as_subclass Tensor.module_load Tensor.const_data_ptr Tensor.hash_tensor
hash_tensor Tensor.dim_order Tensor.index
    no counterpart here
thread_safe_generator
    use a tracecc.Generator for each thread
windows
    use tracecc.signal.windows
AnyType AwaitType BoolType ClassType ComplexType ConcreteModuleType* DeviceObjType DictType
EnumType FloatType FutureType InferredType IntType InterfaceType ListType NoneType NumberType
OptionalType PyObjectType RRefType StreamObjType StringType TensorType TupleType UnionType
AliasDb Argument ArgumentSpec Block BufferDict CallStack Capsule BenchmarkConfig
BenchmarkExecutionStats Code CompleteArgumentSpec DeepCopyMemoTable
DeserializationStorageContext DispatchKey* ErrorReport ExcludeDispatchKeyGuard ExecutionPlan
FatalError FileCheck FunctionSchema Gradient Graph GraphExecutorState IODescriptor LockingLogger
LoggerBase ModuleDict Node NoopLogger OperatorInfo ParameterDict PRIVATE_OPS PyTorchFile*
SerializationStorageContext StaticModule Tag ThroughputBenchmark TracingState Type Use Value
AggregationType AVG SUM classproperty *reproducibility_notes *tf32_notes profiler_allow*
    internal to PyTorch; its graphs correspond to tracecc.ir
"""

# Methods and attributes of PyTorch's Tensor that ours lacks: set on the class, to say why.
OF_TENSORS = """apply_ as_strided_ as_subclass chalf const_data_ptr dim_order eig grad_dtype
    hash_tensor int_repr is_coalesced is_distributed lstsq map2_ map_ module_load new
    prelu hardshrink q_scale q_zero_point qscheme record_stream reinforce resize resize_as set_
    smm solve sparse_dim dense_dim sparse_mask sspaddmm storage storage_type untyped_storage symeig
    to_mkldnn to_padded_tensor to_sparse to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc
    to_sparse_csr values volatile indices ccol_indices col_indices crow_indices row_indices
    sparse_resize_ sparse_resize_and_clear_ resize_as_sparse_ dequantize q_per_channel_axis
    q_per_channel_scales q_per_channel_zero_points slice_inverse index xpu ipu mtia is_ipu is_maia
    is_mtia is_vulkan is_xla"""


@functools.cache
def _hints() -> list[tuple[re.Pattern, str]]:
    """The rows of the table: what a qualified name must look like, and the hint."""
    rows = []
    for names, text in re.findall(r"((?:^\S.*\n)+)((?:^ .*\n)+)", _TABLE, re.MULTILINE):
        pattern = "|".join(re.escape(name).replace(r"\*", ".*") for name in names.split())
        rows.append((re.compile(pattern), " ".join(text.split())))
    return rows


def hint(name: str) -> str | None:
    """What to use instead of PyTorch's ``name`` (such as "nn.functional.scaled_mm").

    >>> hint("jit")[:24]
    'tracecc.compile traces a'
    """
    return next((text for pattern, text in _hints() if pattern.fullmatch(name)), None)


def unknown(module: str, name: str) -> AttributeError:
    """The error about a name that a module of this package does not have.

    >>> import tracecc
    >>> print(unknown("tracecc", "bernouli"))
    module 'tracecc' has no attribute 'bernouli'; did you mean 'bernoulli'?
    """
    plain = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(plain)
    path = module.partition(".")[2]
    found = hint(f"{path}.{name}" if path else name)
    if found is not None:
        return AttributeError(f"{plain}: {found}")
    known = {key: None for key in dir(sys.modules[module]) if key[0] != "_"}
    close = [key for key in known if key.lower() == name.lower()]
    close = close or get_close_matches(name, known, n=1, cutoff=0.65)
    return AttributeError(f"{plain}; did you mean {close[0]!r}?" if close else plain)


class Lacking:
    """Stands on Tensor for a method of PyTorch's that is not here, so that asking says why."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, instance: object, owner: type) -> object:
        raise AttributeError(
            f"'Tensor' object has no attribute {self.name!r}: {hint('Tensor.' + self.name)}"
        )
