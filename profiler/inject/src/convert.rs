//! CUPTI's records become the spool's rows. What makes no sense is kept as it is and counted: what to do
//! about it is the reader's.

use crate::names::{self, Names};
use cupti_sys::{Kind, Strides, cbid, records};
use profiler_wire::rows::{Call, Graph, Kernel, MemoryOp, Overhead};
use profiler_wire::{SpoolError, Spooler};

/// The rows of one buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    kernels: Vec<Kernel>,
    memory_ops: Vec<MemoryOp>,
    graphs: Vec<Graph>,
    calls: Vec<Call>,
    overheads: Vec<Overhead>,
    /// Records of other kinds, which are passed over.
    pub(crate) other: u64,
    /// Bytes that could not be read, behind a damage.
    pub(crate) lost_bytes: u64,
    /// Rows without instants.
    pub(crate) zero_times: u64,
    /// Rows that end before they begin.
    pub(crate) backwards: u64,
    /// Rows that had not ended.
    pub(crate) unfinished: u64,
}

impl Batch {
    /// Reads a buffer.
    pub(crate) fn read(bytes: &[u8], strides: &Strides, names: &mut Names) -> Self {
        let mut batch = Self::default();
        for record in records::Records::new(bytes, strides) {
            match record {
                Ok(record) => batch.add(record, names),
                Err(
                    records::Damage::UnknownKind { left, .. } | records::Damage::Cut { left, .. },
                ) => batch.lost_bytes += left as u64,
            }
        }
        batch
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> u64 {
        let rows = self.kernels.len() + self.memory_ops.len() + self.graphs.len();
        (rows + self.calls.len() + self.overheads.len()) as u64
    }

    /// Writes them, after the names that they use.
    pub(crate) fn write(&self, names: &mut Names, spooler: &mut Spooler) -> Result<(), SpoolError> {
        spooler.names(&names.take_new())?;
        spooler.rows(&self.kernels)?;
        spooler.rows(&self.memory_ops)?;
        spooler.rows(&self.graphs)?;
        spooler.rows(&self.calls)?;
        spooler.rows(&self.overheads)
    }

    fn add(&mut self, record: records::Record<'_>, names: &mut Names) {
        if let Some(kernel) = records::Kernel::of(record) {
            self.count(kernel.start(), kernel.end());
            self.kernels.push(self::kernel(kernel, names));
        } else if let Some(op) = memory_op(record) {
            self.count(op.start_ns, op.end_ns);
            self.memory_ops.push(op);
        } else if let Some(graph) = records::Graph::of(record) {
            self.count(graph.start(), graph.end());
            self.graphs.push(self::graph(graph));
        } else if let Some(call) = records::Call::of(record) {
            // Versions that cannot record single calls record all of them.
            if is_launch(record.kind(), call.cbid()) {
                self.calls.push(self::call(record.kind(), call));
            } else {
                self.other += 1;
            }
        } else if let Some(overhead) = records::Overhead::of(record) {
            self.overheads.push(Overhead {
                start_ns: overhead.start(),
                end_ns: overhead.end(),
                what: overhead.what().into(),
                correlation: overhead.correlation().unwrap_or(0).into(),
            });
        } else {
            self.other += 1;
        }
    }

    fn count(&mut self, start: u64, end: u64) {
        match (start, end) {
            (0, 0) => self.zero_times += 1,
            (_, 0) => self.unfinished += 1,
            (start, end) if end < start => self.backwards += 1,
            _ => {}
        }
    }
}

fn is_launch(kind: Kind, cbid: u32) -> bool {
    match kind {
        Kind::RUNTIME => cbid::RUNTIME_LAUNCHES.contains(&cbid),
        _ => cbid::DRIVER_LAUNCHES.contains(&cbid),
    }
}

/// A size that C has as an `int`, of which none is negative.
fn size(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn kernel(kernel: records::Kernel<'_>, names: &mut Names) -> Kernel {
    let name = kernel.name() as *const std::ffi::c_char;
    #[expect(unsafe_code, reason = "names are addresses")]
    // SAFETY: CUPTI keeps the names of the kernels in its records as long as their module is loaded, and
    // the record was completed a moment ago.
    let name = unsafe { names::text_at(name) };
    Kernel {
        start_ns: kernel.start(),
        end_ns: kernel.end(),
        name: names.number(name),
        device: kernel.device().into(),
        context: kernel.context().into(),
        stream: kernel.stream().into(),
        correlation: kernel.correlation().into(),
        graph: kernel.graph().into(),
        graph_node: kernel.graph_node(),
        grid_x: size(kernel.grid_x()),
        grid_y: size(kernel.grid_y()),
        grid_z: size(kernel.grid_z()),
        block_x: size(kernel.block_x()),
        block_y: size(kernel.block_y()),
        block_z: size(kernel.block_z()),
        cluster_x: kernel.cluster_x().unwrap_or(0).into(),
        cluster_y: kernel.cluster_y().unwrap_or(0).into(),
        cluster_z: kernel.cluster_z().unwrap_or(0).into(),
        registers: kernel.registers().into(),
        static_shared: size(kernel.static_shared()),
        dynamic_shared: size(kernel.dynamic_shared()),
    }
}

fn memory_op(record: records::Record<'_>) -> Option<MemoryOp> {
    let kind = record.kind().0.into();
    if let Some(copy) = records::Memcpy::of(record) {
        return Some(MemoryOp {
            start_ns: copy.start(),
            end_ns: copy.end(),
            kind,
            copy_kind: copy.copy_kind().into(),
            source: copy.source().into(),
            destination: copy.destination().into(),
            bytes: copy.bytes(),
            device: copy.device().into(),
            context: copy.context().into(),
            stream: copy.stream().into(),
            correlation: copy.correlation().into(),
            graph: copy.graph().into(),
            graph_node: copy.graph_node(),
        });
    }
    if let Some(copy) = records::PeerCopy::of(record) {
        return Some(MemoryOp {
            start_ns: copy.start(),
            end_ns: copy.end(),
            kind,
            copy_kind: copy.copy_kind().into(),
            source: copy.source().into(),
            destination: copy.destination().into(),
            bytes: copy.bytes(),
            device: copy.device().into(),
            context: copy.context().into(),
            stream: copy.stream().into(),
            correlation: copy.correlation().into(),
            graph: copy.graph().into(),
            graph_node: copy.graph_node(),
        });
    }
    let set = records::Memset::of(record)?;
    Some(MemoryOp {
        start_ns: set.start(),
        end_ns: set.end(),
        kind,
        destination: set.memory().into(),
        bytes: set.bytes(),
        device: set.device().into(),
        context: set.context().into(),
        stream: set.stream().into(),
        correlation: set.correlation().into(),
        graph: set.graph().into(),
        graph_node: set.graph_node(),
        ..MemoryOp::default()
    })
}

fn graph(graph: records::Graph<'_>) -> Graph {
    Graph {
        start_ns: graph.start(),
        end_ns: graph.end(),
        graph: graph.graph().into(),
        device: graph.device().into(),
        context: graph.context().into(),
        stream: graph.stream().into(),
        correlation: graph.correlation().into(),
    }
}

fn call(kind: Kind, call: records::Call<'_>) -> Call {
    Call {
        start_ns: call.start(),
        end_ns: call.end(),
        kind: kind.0.into(),
        cbid: call.cbid().into(),
        thread: call.thread().into(),
        correlation: call.correlation().into(),
        returned: call.returned().into(),
    }
}
