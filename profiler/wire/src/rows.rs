//! What a spool holds of each thing that a GPU, CUPTI or the server did, one row each. All values are
//! numbers; instants are nanoseconds of CUPTI's clock, and names are numbers of the spool's own.

/// A row that is as many numbers in a fixed order.
pub trait Row: Sized {
    /// Number of its frames' kind.
    const KIND: u16;
    /// How many numbers.
    const COLUMNS: usize;
    /// Appends its numbers.
    fn put(&self, into: &mut Vec<u64>);
    /// Takes it from its numbers, of which there are [`Row::COLUMNS`]; missing ones are 0.
    fn take(numbers: &[u64]) -> Self;
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident = $kind:literal { $($(#[$doc:meta])* $field:ident,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            pub struct $name {
                $($(#[$doc])* pub $field: u64,)*
            }

            impl Row for $name {
                const KIND: u16 = $kind;
                const COLUMNS: usize = [$(stringify!($field)),*].len();

                fn put(&self, into: &mut Vec<u64>) {
                    into.extend([$(self.$field),*]);
                }

                fn take(numbers: &[u64]) -> Self {
                    let mut numbers = numbers.iter().copied();
                    Self { $($field: numbers.next().unwrap_or(0),)* }
                }
            }
        )*
    };
}

rows! {
    /// A kernel that ran.
    Kernel = 16 {
        /// When it began; with `end_ns` 0 where CUPTI could not tell.
        start_ns,
        /// When it ended; 0 if it had not when the window closed.
        end_ns,
        /// Number of its mangled name.
        name,
        /// The GPU's number in its process.
        device,
        /// CUPTI's number of the context.
        context,
        /// CUPTI's number of the stream.
        stream,
        /// Joins it with its launch.
        correlation,
        /// The graph that it is of, else 0.
        graph,
        /// The node of it that it is, else 0.
        graph_node,
        /// Blocks of its grid, x.
        grid_x,
        /// Blocks of its grid, y.
        grid_y,
        /// Blocks of its grid, z.
        grid_z,
        /// Threads of a block, x.
        block_x,
        /// Threads of a block, y.
        block_y,
        /// Threads of a block, z.
        block_z,
        /// Blocks of a cluster, x; 0 without clusters.
        cluster_x,
        /// Blocks of a cluster, y.
        cluster_y,
        /// Blocks of a cluster, z.
        cluster_z,
        /// Registers of a thread.
        registers,
        /// Shared memory of a block as compiled, bytes.
        static_shared,
        /// Shared memory of a block as asked for at its launch, bytes.
        dynamic_shared,
    }

    /// A copy, or memory that was set.
    MemoryOp = 17 {
        /// When it began.
        start_ns,
        /// When it ended.
        end_ns,
        /// CUPTI's kind of its record: 1 copy, 2 set, 22 copy between GPUs.
        kind,
        /// CUPTI's kind of copy; 0 for memory that was set.
        copy_kind,
        /// CUPTI's kind of the memory that it reads.
        source,
        /// CUPTI's kind of the memory that it writes.
        destination,
        /// How many bytes.
        bytes,
        /// The GPU's number in its process.
        device,
        /// CUPTI's number of the context.
        context,
        /// CUPTI's number of the stream.
        stream,
        /// Joins it with its launch.
        correlation,
        /// The graph that it is of, else 0.
        graph,
        /// The node of it that it is, else 0.
        graph_node,
    }

    /// A launch of a graph as a whole.
    Graph = 18 {
        /// When its first node began.
        start_ns,
        /// When its last node ended.
        end_ns,
        /// The graph.
        graph,
        /// The GPU's number in its process.
        device,
        /// CUPTI's number of the context.
        context,
        /// CUPTI's number of the stream.
        stream,
        /// Joins it with its launch.
        correlation,
    }

    /// A call of the runtime or the driver.
    Call = 19 {
        /// When it began.
        start_ns,
        /// When it ended.
        end_ns,
        /// CUPTI's kind of its record: 4 driver, 5 runtime.
        kind,
        /// Which call.
        cbid,
        /// The thread that made it.
        thread,
        /// Joins it with what it launched.
        correlation,
        /// What it returned.
        returned,
    }

    /// Time that CUPTI, the driver or the compiler took for itself.
    Overhead = 20 {
        /// When it began.
        start_ns,
        /// When it ended.
        end_ns,
        /// What for, as CUPTI has it.
        what,
        /// Joins it with the call that it delayed, else 0.
        correlation,
    }

    /// A range of NVTX.
    Range = 21 {
        /// When it began.
        start_ns,
        /// When it ended; one that had not when the window closed is not there.
        end_ns,
        /// Number of its text.
        name,
        /// Number of its domain's name; 0 for the one without.
        domain,
        /// The thread that opened it.
        thread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<R: Row>() -> Vec<u64> {
        (1..).take(R::COLUMNS).collect()
    }

    #[test]
    fn rows_are_their_numbers_in_order() {
        let mut put = Vec::new();
        Kernel::take(&numbers::<Kernel>()).put(&mut put);
        MemoryOp::take(&numbers::<MemoryOp>()).put(&mut put);
        assert_eq!(put, [numbers::<Kernel>(), numbers::<MemoryOp>()].concat());
        assert_eq!(Kernel::take(&[7]).start_ns, 7);
        assert_eq!(Range::COLUMNS, 5);
    }
}
