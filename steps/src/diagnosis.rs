//! What the logs of inference servers and of programs beside them mean: one line and a hint.
//!
//! A pure function from text to a finding. The texts are those that vLLM, SGLang, lmdeploy,
//! TensorRT-LLM, llama.cpp, the ServerlessLLM store, PyTorch, Transformers, uvicorn and this project's own
//! server write.

use engine::logs::{Diagnosis, reason_in};
use engine::process::{Exit, telling_log};
use engine::step::StepError;
use std::path::Path;

/// A kind of failure and the texts that tell it.
struct Rule {
    class: &'static str,
    hint: &'static str,
    /// Each is a list of words that one line holds all, in lowercase.
    texts: &'static [&'static [&'static str]],
}

/// Where one line fits several, the first counts: special ones stand before general ones.
const RULES: &[Rule] = &[
    Rule {
        class: "the context is too long for the key-value cache",
        hint: "lower the longest sequence (`--max-model-len`, `--context-length`, `--session-len`), or give the cache more memory",
        texts: &[
            &["to serve at least one request", "kv cache is needed"],
            &[
                "max seq len",
                "larger than the maximum number of tokens that can be stored in kv cache",
            ],
            &[
                "user-specified max_model_len",
                "is greater than the derived max_model_len",
            ],
            &["maxtokensinpagedkvcache", "must be large enough"],
            &["`context_length`", "positions of the model"],
        ],
    },
    Rule {
        class: "out of GPU memory",
        hint: "lower the share of memory for the cache (`--gpu-memory-utilization`, `--mem-fraction-static`, `--cache-max-entry-count`), use more GPUs, or see with `nvidia-smi` who else holds memory",
        texts: &[
            &["cuda out of memory"],
            &["cuda error: out of memory"],
            &["cuda runtime error", "out of memory"],
            &["cudaerrormemoryallocation"],
            &["cudamalloc failed: out of memory"],
            &["hip out of memory"],
            &["cublas_status_alloc_failed"],
        ],
    },
    Rule {
        class: "too little GPU memory for the key-value cache",
        hint: "raise the share of memory that the server may take (`--gpu-memory-utilization`, `--mem-fraction-static`), or use more GPUs or a smaller model",
        texts: &[
            &["no available memory for the cache blocks"],
            &["not enough memory", "--mem-fraction-static"],
            &[
                "free memory on device",
                "is less than desired gpu memory utilization",
            ],
        ],
    },
    Rule {
        class: "too small a key-value cache",
        hint: "raise what the line names (`max_total_tokens`, or memory and the share of it: `--device-memory`, `--mem-fraction-static`), or take smaller pages",
        texts: &[&["does not hold one block"]],
    },
    Rule {
        class: "out of shared memory",
        hint: "enlarge `/dev/shm`: `--shm-size` or `--ipc=host` of the container",
        texts: &[
            &["insufficient shared memory"],
            &["no space left on device", "/dev/shm"],
        ],
    },
    Rule {
        class: "no space left on the disk",
        hint: "make room where the server keeps models and caches, or point it elsewhere (`HF_HOME`, `TMPDIR`)",
        texts: &[&["no space left on device"], &["disk quota exceeded"]],
    },
    Rule {
        class: "out of host memory",
        hint: "give the machine or container more memory, or load less at a time",
        texts: &[
            &["cannot allocate memory"],
            &["not enough memory:", "of weights"],
            &["defaultcpuallocator", "allocate memory"],
            &["std::bad_alloc"],
            &["memoryerror"],
            &["memory allocation of", "bytes failed"],
            &["out-of-memory", "killed"],
            &["ray.exceptions.outofmemoryerror"],
        ],
    },
    Rule {
        class: "unrecognised argument",
        hint: "see the server's `--help` for how this version spells it",
        texts: &[
            &["error: unrecognized arguments"],
            &["error: argument", "invalid choice"],
            &["error: argument", "expected"],
            &["error: argument", "invalid"],
            &["error: the following arguments are required"],
            &["error: unexpected argument"],
            &["error: invalid value", "for '--"],
            &["error: no such option"],
            &["error: invalid argument:"],
            &["error: ambiguous option"],
            &["option `", "expected at least"],
            &["unexpected keyword argument"],
        ],
    },
    Rule {
        class: "the port is in use",
        hint: "leave the port to Benchwright (`{port}`), or end what listens there",
        texts: &[
            &["address already in use"],
            &["address", "is in use"],
            &["eaddrinuse"],
            &["port", "is already in use"],
            &["couldn't bind to server socket"],
            &["couldn't bind http server socket"],
        ],
    },
    Rule {
        class: "CUDA and its driver do not fit",
        hint: "see the driver's version with `nvidia-smi`, and install builds of PyTorch and of the server for it; in a container, start it with GPUs",
        texts: &[
            &["nvidia driver on your system is too old"],
            &["cuda driver version is insufficient"],
            &["no kernel image is available for execution"],
            &["unsupported toolchain"],
            &["driver/library version mismatch"],
            &["found no nvidia driver"],
            &["no cuda gpus are available"],
            &["libcuda.so", "cannot open shared object file"],
            &["libcudart", "cannot open shared object file"],
            &["libnvidia-ml.so", "cannot open shared object file"],
            &["no cuda-capable device is detected"],
            &["torch not compiled with cuda enabled"],
            &["undefined symbol", "c10"],
            &["undefined symbol", "cuda"],
            &["failed to infer device type"],
            &["no gpu devices found on the node"],
        ],
    },
    Rule {
        class: "too small a pool of the store",
        hint: "give `server.sllm_store` a `pool` that the largest model fits into",
        texts: &[
            &["failed to free enough memory for model"],
            &["pinnedmemorypool out of memory"],
        ],
    },
    Rule {
        class: "host memory could not be pinned",
        hint: "give the store a smaller `pool`, or the machine or container more memory",
        texts: &[&["cudahostregister failed"]],
    },
    Rule {
        class: "NCCL failed",
        hint: "run it once with `NCCL_DEBUG=INFO` in `env`; look at `/dev/shm`, `NCCL_SOCKET_IFNAME` and whether all GPUs see each other (`nvidia-smi topo -m`)",
        texts: &[
            &["nccl error"],
            &["ncclunhandledcudaerror"],
            &["ncclsystemerror"],
            &["ncclinternalerror"],
            &["ncclremoteerror"],
            &["ncclinvalidusage"],
            &["watchdog caught collective operation timeout"],
            &["failed, nccl"],
            &["nccl failure"],
        ],
    },
    Rule {
        class: "the ranks did not find each other",
        hint: "see that every rank was launched, each once, with the same `nodes` and `master`, and that the port there can be reached; `NCCL_SOCKET_IFNAME` and `GLOO_SOCKET_IFNAME` in `env` name the network between machines",
        texts: &[
            &["distnetworkerror"],
            &["diststoreerror"],
            &["client socket has failed to connect"],
            &["timed out", "waiting for clients"],
        ],
    },
    Rule {
        class: "the model may not be downloaded",
        hint: "accept its licence on its page, and give the service a token: `env = { HF_TOKEN = \"${secret.HF_TOKEN}\" }`",
        texts: &[
            &["gatedrepoerror"],
            &["cannot access gated repo"],
            &["you are trying to access a gated repo"],
            &["access to model", "is restricted"],
            &["401 client error", "unauthorized"],
            &["403 client error", "forbidden"],
            &["repositorynotfounderror"],
            &["invalid username or password"],
        ],
    },
    Rule {
        class: "the server does not know this kind of model",
        hint: "use a version of the server that supports the `architectures` of the model's `config.json`",
        texts: &[
            &["model architectures", "are not supported"],
            &["does not recognize this architecture"],
            &["unknown model architecture"],
            &["unsupported model architecture"],
            &["unsupported architecture"],
            &["unrecognized configuration class"],
            &["unrecognized model in"],
            &["unknown architecture"],
            &["failed to be inspected"],
            &["model configuration", "supported:"],
        ],
    },
    Rule {
        class: "a Python module is missing",
        hint: "install it into the environment that the server runs in, or name that environment's own `python`",
        texts: &[
            &["modulenotfounderror: no module named"],
            &["importerror: cannot import name"],
            &["error while finding module specification"],
            &[": no module named"],
        ],
    },
    Rule {
        class: "permission denied",
        hint: "see who owns the file or device, and who runs the server",
        texts: &[&["permission denied"], &["operation not permitted"]],
    },
    Rule {
        class: "a file or model is missing",
        hint: "see that the path exists where the server runs: its folder is that of the command, and a container has its own",
        texts: &[
            &["filenotfounderror"],
            &["no such file or directory"],
            &["does not appear to have a file named"],
            &["is not a valid model identifier"],
            &["invalid repository id or local directory"],
            &["can't load the configuration of"],
            &["can't load tokenizer for"],
            &["repo id must be in the form"],
            &["cannot find any model weights"],
            &["failed to open gguf file"],
            &["localentrynotfounderror"],
            &["couldn't connect to", "huggingface.co"],
            &["cannot open shared object file"],
            &["failed to load model"],
            &["model folder", "does not exist"],
            &["cannot read the model configuration"],
            &["cannot read tokenizer"],
        ],
    },
];

/// Words of lines that tell of something that the program got over.
const HARMLESS: &[&str] = &[
    "warning",
    " info ",
    "info:",
    "[i]",
    "[info]",
    " debug ",
    "[debug]",
    "warn:",
    "[w]",
    // SGLang goes through all models that it knows, and not all can be imported.
    "ignore import error",
];

/// Finds out what a log says of a failure: the last line that tells something, because what ends a
/// program is what it says last. Warnings tell nothing.
pub(crate) fn diagnose(log: &str) -> Option<Diagnosis> {
    log.lines().rev().find_map(|line| {
        let lowercase = line.to_lowercase();
        if HARMLESS.iter().any(|word| lowercase.contains(word)) {
            return None;
        }
        let rule = RULES.iter().find(|rule| rule.fits(&lowercase))?;
        Some(Diagnosis::new(rule.class, line, rule.hint))
    })
}

impl Rule {
    fn fits(&self, lowercase: &str) -> bool {
        self.texts
            .iter()
            .any(|words| words.iter().all(|word| lowercase.contains(word)))
    }
}

/// Builds the error of a step whose process, which has `folder`, ended with `exit`: what its logs
/// say, and the log that says most.
pub(crate) fn failed(message: String, exit: Option<Exit>, folder: &Path) -> StepError {
    let reason = reason_in(folder, diagnose);
    let (diagnosis, log) = match reason {
        Some((diagnosis, log)) => (Some(diagnosis), Some(log)),
        None => (exit.and_then(Diagnosis::of_exit), telling_log(folder)),
    };
    let mut error = match diagnosis {
        Some(found) => StepError::new(format!("{message}: {found}")).help(found.hint),
        None => StepError::new(message),
    };
    error.log = log;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as real programs write them, by the class that they belong to.
    const LINES: &[(&str, &[&str])] = &[
        (
            "out of GPU memory",
            &[
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.02 GiB is free.",
                "(EngineCore_DP0 pid=4711) ERROR 03-29 18:12:39 [core.py:700] torch.cuda.OutOfMemoryError: CUDA out of memory.",
                "RuntimeError: CUDA error: out of memory",
                "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/utils/memory_utils.cu:32",
                "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8192.00 MiB on device 0: cudaMalloc failed: out of memory",
            ],
        ),
        (
            "too little GPU memory for the key-value cache",
            &[
                "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
                "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: self.server_args.mem_fraction_static=0.2",
                "ValueError: Free memory on device (3.1/79.11 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB).",
            ],
        ),
        (
            "too small a key-value cache",
            &["error: option `max_total_tokens`: 8 does not hold one block of 16 tokens; raise it"],
        ),
        (
            "the context is too long for the key-value cache",
            &[
                "(EngineCore pid=316) ValueError: To serve at least one request with the model's max seq len (100000), (4.26 GiB KV cache is needed, which is larger than the available KV cache memory (4.25 GiB).",
                "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`.",
                "error: option `context_length`: 4096 is more than the 2048 positions of the model",
                "[TensorRT-LLM][ERROR] maxTokensInPagedKvCache must be large enough to process at least 1 sequence to completion (i.e. must be larger than beam_width * tokensPerBlock * maxBlocksPerSeq)",
            ],
        ),
        (
            "out of host memory",
            &[
                "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 53687091200 bytes.",
                "OSError: [Errno 12] Cannot allocate memory",
                "memory allocation of 1099511627776 bytes failed",
                "error: not enough memory: 9000 MiB of weights and 256 MiB of key-value cache are needed, 4000 MiB are available; lower `max_total_tokens` or use a smaller model",
            ],
        ),
        (
            "out of shared memory",
            &[
                "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
            ],
        ),
        (
            "unrecognised argument",
            &[
                "vllm: error: unrecognized arguments: --tensor-paralel-size 2",
                "launch_server.py: error: argument --attention-backend: invalid choice: 'fa9' (choose from 'fa3', 'triton')",
                "error: unexpected argument '--page-sise' found",
                "error: invalid argument: --ctx-sise",
                "error: option `threads`: found 0, expected at least 1",
                "trtllm-serve: Error: No such option: --max_batchsize",
            ],
        ),
        (
            "the port is in use",
            &[
                "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
                "OSError: [Errno 98] Address already in use",
                "error: address 127.0.0.1:8000 is in use; choose another `port`, or 0 for any free one",
                "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
            ],
        ),
        (
            "too small a pool of the store",
            &[
                "E20260301 18:12:39.123456  4711 checkpoint_store.cpp:163] Failed to free enough memory for model /models/opt-6.7b",
                "E20260301 18:12:39.123456  4711 pinned_memory_pool.cpp:60] PinnedMemoryPool out of memory (2 buffers available, 9 buffers needed)",
            ],
        ),
        (
            "host memory could not be pinned",
            &[
                "F20260301 18:12:39.123456  4711 pinned_memory_pool.cpp:41] cudaHostRegister failed: out of memory",
            ],
        ),
        (
            "NCCL failed",
            &[
                "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
                "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, unhandled cuda error",
                "[rank1]:[E ProcessGroupNCCL.cpp:563] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)",
                "Failed, NCCL error /lmdeploy/src/turbomind/utils/nccl_utils.cc:88 'unhandled system error'",
            ],
        ),
        (
            "a file or model is missing",
            &[
                "FileNotFoundError: [Errno 2] No such file or directory: '/models/qwen/config.json'",
                "OSError: /models/qwen does not appear to have a file named config.json. Checkout 'https://huggingface.co//models/qwen/tree/main' for available files.",
                "OSError: qwen/none is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
                "ValueError: Invalid repository ID or local directory specified: '/models/none'.",
                "gguf_init_from_file: failed to open GGUF file 'none.gguf'",
                "error: model folder `/models/none` does not exist; set `model_path` to one that does",
            ],
        ),
        (
            "a Python module is missing",
            &[
                "ModuleNotFoundError: No module named 'flashinfer'",
                "/usr/bin/python3: No module named vllm",
                "/usr/bin/python3: Error while finding module specification for 'sglang.launch_server' (ModuleNotFoundError: No module named 'sglang')",
            ],
        ),
        (
            "permission denied",
            &["PermissionError: [Errno 13] Permission denied: '/models/hub'"],
        ),
        (
            "CUDA and its driver do not fit",
            &[
                "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
                "RuntimeError: CUDA error: no kernel image is available for execution on the device",
                "Failed to initialize NVML: Driver/library version mismatch",
                "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
                "F20260301 18:12:39.123456  4711 pinned_memory_pool.cpp:41] cudaHostRegister failed: no CUDA-capable device is detected",
                "ImportError: /venv/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
            ],
        ),
        (
            "the model may not be downloaded",
            &[
                "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-6)",
                "OSError: You are trying to access a gated repo.",
                "Access to model meta-llama/Llama-3.1-8B is restricted. You must have access to it and be authenticated to access it. Please log in.",
            ],
        ),
        (
            "the ranks did not find each other",
            &[
                "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
                "torch.distributed.DistNetworkError: The client socket has failed to connect to any network address of (node-0, 29501).",
            ],
        ),
        (
            "the server does not know this kind of model",
            &[
                "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys(['AquilaModel'])",
                "ValueError: The checkpoint you are trying to load has model type `qwen9` but Transformers does not recognize this architecture.",
                "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'qwen9'",
                "error: the model configuration `/models/x/config.json` cannot be used: key `model_type` is `gemma9`, supported: `llama`, `qwen2`, `qwen3`",
            ],
        ),
        (
            "no space left on the disk",
            &["OSError: [Errno 28] No space left on device"],
        ),
    ];

    #[test]
    fn real_lines_are_told_apart() {
        for (class, lines) in LINES {
            for line in *lines {
                let log = format!("loading\n{line}\nsome more\n");
                let found = diagnose(&log);
                assert_eq!(found.as_ref().map(|d| d.class), Some(*class), "{line}");
                assert!(line.starts_with(found.unwrap().line.trim_end_matches('…')));
            }
        }
    }

    #[test]
    fn the_last_word_counts_and_warnings_do_not() {
        let got_over = "WARNING 03-29 [interface.py:219] Failed to import from vllm._C with ModuleNotFoundError: No module named 'vllm._C'";
        let fatal = "vllm: error: unrecognized arguments: --foo";
        let found = diagnose(&format!("{fatal}\n{got_over}\n")).unwrap();
        assert_eq!(found.class, "unrecognised argument");
        assert_eq!(diagnose(got_over), None);
        let two = "OSError: [Errno 12] Cannot allocate memory\ntorch.OutOfMemoryError: CUDA out of memory.\n";
        assert_eq!(diagnose(two).unwrap().class, "out of GPU memory");
    }

    #[test]
    fn what_is_unknown_is_not_guessed() {
        for log in [
            "",
            "\n\n",
            "INFO: Uvicorn running on http://127.0.0.1:8000\n",
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
        ] {
            assert_eq!(diagnose(log), None, "{log}");
        }
    }

    #[test]
    fn every_class_has_a_hint_and_lines_that_show_it() {
        for rule in RULES {
            assert!(!rule.hint.is_empty());
            assert!(
                LINES.iter().any(|(class, _)| *class == rule.class),
                "{}",
                rule.class
            );
            let words = rule.texts.iter().copied().flatten();
            assert!(
                words.into_iter().all(|w| *w == w.to_lowercase()),
                "{}",
                rule.class
            );
        }
    }
}
