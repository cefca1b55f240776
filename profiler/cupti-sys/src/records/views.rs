//! Records of each kind, by NVIDIA's names of their fields and where these are in every version.

use super::{Field, Layout, Record, read};
use crate::constants::Kind;

macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident: $structure:literal, [$($kind:ident),*], $least:literal;
        always { $($(#[$doc:meta])* $field:ident: $type:ident = $at:literal $c:literal,)* }
        late { $($(#[$late_doc:meta])* $late:ident: $late_type:ident = $late_at:literal $late_c:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name<'a>(&'a [u8]);

        impl<'a> $name<'a> {
            /// What is read of it.
            pub const LAYOUT: Layout = Layout {
                kinds: &[$(Kind::$kind),*],
                structure: $structure,
                least: $least,
                fields: &[
                    $(Field { name: $c, at: $at, size: size_of::<$type>(), is_late: false },)*
                    $(Field { name: $late_c, at: $late_at, size: size_of::<$late_type>(), is_late: true },)*
                ],
            };

            /// Takes a record of its kind for what it is.
            #[must_use]
            pub fn of(record: Record<'a>) -> Option<Self> {
                let is_one = Self::LAYOUT.kinds.contains(&record.kind);
                (is_one && record.bytes.len() >= $least).then_some(Self(record.bytes))
            }

            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(&self) -> $type {
                    // Every version's record is long enough, which `of` has seen.
                    read(self.0, $at).map_or(0, $type::from_ne_bytes)
                }
            )*
            $(
                $(#[$late_doc])*
                #[must_use]
                pub fn $late(&self) -> Option<$late_type> {
                    read(self.0, $late_at).map($late_type::from_ne_bytes)
                }
            )*
        }
    };
}

record! {
    /// A kernel. Instants are nanoseconds of CUPTI's clock; both are 0 where it could not tell.
    Kernel: "CUpti_ActivityKernel", [KERNEL, CONCURRENT_KERNEL], 160;
    always {
        /// Registers of a thread.
        registers: u16 = 6 "registersPerThread",
        /// When it began.
        start: u64 = 16 "start",
        /// When it ended; 0 if it still ran at a forced flush.
        end: u64 = 24 "end",
        /// The GPU's number in this process.
        device: u32 = 40 "deviceId",
        /// CUPTI's number of the context.
        context: u32 = 44 "contextId",
        /// CUPTI's number of the stream.
        stream: u32 = 48 "streamId",
        /// Blocks of the grid, x.
        grid_x: i32 = 52 "gridX",
        /// Blocks of the grid, y.
        grid_y: i32 = 56 "gridY",
        /// Blocks of the grid, z.
        grid_z: i32 = 60 "gridZ",
        /// Threads of a block, x.
        block_x: i32 = 64 "blockX",
        /// Threads of a block, y.
        block_y: i32 = 68 "blockY",
        /// Threads of a block, z.
        block_z: i32 = 72 "blockZ",
        /// Shared memory of a block as compiled, bytes.
        static_shared: i32 = 76 "staticSharedMemory",
        /// Shared memory of a block as asked for at the launch, bytes.
        dynamic_shared: i32 = 80 "dynamicSharedMemory",
        /// Joins it with its launch; of a graph all have the launch's.
        correlation: u32 = 92 "correlationId",
        /// Address of its mangled name.
        name: usize = 104 "name",
        /// The node of a graph that it is, else 0.
        graph_node: u64 = 144 "graphNodeId",
        /// The graph that it is of, else 0.
        graph: u32 = 156 "graphId",
    }
    late {
        /// Blocks of a cluster, x.
        cluster_x: u32 = 176 "clusterX",
        /// Blocks of a cluster, y.
        cluster_y: u32 = 180 "clusterY",
        /// Blocks of a cluster, z.
        cluster_z: u32 = 184 "clusterZ",
    }
}

record! {
    /// A copy between memories of one GPU and the host.
    Memcpy: "CUpti_ActivityMemcpy", [MEMCPY], 76;
    always {
        /// From which kind of memory to which, `CUpti_ActivityMemcpyKind`.
        copy_kind: u8 = 4 "copyKind",
        /// Kind of memory that it reads.
        source: u8 = 5 "srcKind",
        /// Kind of memory that it writes.
        destination: u8 = 6 "dstKind",
        /// How many bytes.
        bytes: u64 = 8 "bytes",
        /// When it began.
        start: u64 = 16 "start",
        /// When it ended.
        end: u64 = 24 "end",
        /// The GPU's number in this process.
        device: u32 = 32 "deviceId",
        /// CUPTI's number of the context.
        context: u32 = 36 "contextId",
        /// CUPTI's number of the stream.
        stream: u32 = 40 "streamId",
        /// Joins it with its launch.
        correlation: u32 = 44 "correlationId",
        /// The node of a graph that it is, else 0.
        graph_node: u64 = 64 "graphNodeId",
        /// The graph that it is of, else 0.
        graph: u32 = 72 "graphId",
    }
    late {}
}

record! {
    /// A copy from one GPU to another.
    PeerCopy: "CUpti_ActivityMemcpyPtoP", [MEMCPY2], 84;
    always {
        /// From which kind of memory to which.
        copy_kind: u8 = 4 "copyKind",
        /// Kind of memory that it reads.
        source: u8 = 5 "srcKind",
        /// Kind of memory that it writes.
        destination: u8 = 6 "dstKind",
        /// How many bytes.
        bytes: u64 = 8 "bytes",
        /// When it began.
        start: u64 = 16 "start",
        /// When it ended.
        end: u64 = 24 "end",
        /// Number of the GPU whose stream it is in.
        device: u32 = 32 "deviceId",
        /// CUPTI's number of the context.
        context: u32 = 36 "contextId",
        /// CUPTI's number of the stream.
        stream: u32 = 40 "streamId",
        /// Joins it with its launch.
        correlation: u32 = 60 "correlationId",
        /// The node of a graph that it is, else 0.
        graph_node: u64 = 72 "graphNodeId",
        /// The graph that it is of, else 0.
        graph: u32 = 80 "graphId",
    }
    late {}
}

record! {
    /// Memory that is set to a value.
    Memset: "CUpti_ActivityMemset", [MEMSET], 76;
    always {
        /// How many bytes.
        bytes: u64 = 8 "bytes",
        /// When it began.
        start: u64 = 16 "start",
        /// When it ended.
        end: u64 = 24 "end",
        /// The GPU's number in this process.
        device: u32 = 32 "deviceId",
        /// CUPTI's number of the context.
        context: u32 = 36 "contextId",
        /// CUPTI's number of the stream.
        stream: u32 = 40 "streamId",
        /// Joins it with its launch.
        correlation: u32 = 44 "correlationId",
        /// Kind of memory that it writes.
        memory: u16 = 50 "memoryKind",
        /// The node of a graph that it is, else 0.
        graph_node: u64 = 64 "graphNodeId",
        /// The graph that it is of, else 0.
        graph: u32 = 72 "graphId",
    }
    late {}
}

record! {
    /// A launch of a graph as a whole.
    Graph: "CUpti_ActivityGraphTrace", [GRAPH_TRACE], 40;
    always {
        /// Joins it with its launch.
        correlation: u32 = 4 "correlationId",
        /// When its first node began.
        start: u64 = 8 "start",
        /// When its last node ended.
        end: u64 = 16 "end",
        /// Number of the GPU of its first node; the largest positive `int` where that is the host's.
        device: u32 = 24 "deviceId",
        /// The graph.
        graph: u32 = 28 "graphId",
        /// CUPTI's number of the context.
        context: u32 = 32 "contextId",
        /// CUPTI's number of the stream.
        stream: u32 = 36 "streamId",
    }
    late {}
}

record! {
    /// A call of the runtime or the driver.
    Call: "CUpti_ActivityAPI", [DRIVER, RUNTIME], 40;
    always {
        /// Which call.
        cbid: u32 = 4 "cbid",
        /// When it began.
        start: u64 = 8 "start",
        /// When it ended.
        end: u64 = 16 "end",
        /// The thread that made it.
        thread: u32 = 28 "threadId",
        /// Joins it with what it launched.
        correlation: u32 = 32 "correlationId",
        /// What it returned.
        returned: u32 = 36 "returnValue",
    }
    late {}
}

record! {
    /// Time that CUPTI, the driver or the compiler took for itself.
    Overhead: "CUpti_ActivityOverhead", [OVERHEAD], 40;
    always {
        /// What for, `CUpti_ActivityOverheadKind`.
        what: u32 = 4 "overheadKind",
        /// When it began.
        start: u64 = 24 "start",
        /// When it ended.
        end: u64 = 32 "end",
    }
    late {
        /// Joins it with the call that it delayed.
        correlation: u32 = 40 "correlationId",
    }
}

record! {
    /// A wait of the host.
    Synchronization: "CUpti_ActivitySynchronization", [SYNCHRONIZATION], 40;
    always {
        /// For what, `CUpti_ActivitySynchronizationType`.
        what: u32 = 4 "type",
        /// When it began.
        start: u64 = 8 "start",
        /// When it ended.
        end: u64 = 16 "end",
        /// Joins it with its call.
        correlation: u32 = 24 "correlationId",
        /// CUPTI's number of the context.
        context: u32 = 28 "contextId",
        /// CUPTI's number of the stream, if it waits for one.
        stream: u32 = 32 "streamId",
    }
    late {}
}
