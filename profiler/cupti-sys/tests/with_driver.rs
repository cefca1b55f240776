//! Sessions with a stand-in for CUPTI in a process that has a driver, and the ways in which it lies.

use cupti_sys::records::{Call, Damage, Kernel, Memcpy, Record, Records};
use cupti_sys::{
    Attribute, Cupti, CuptiError, Domain, Driver, Flush, Kind, Library, LoadError, StrideError,
    Strides, Version, cbid, find,
};
use fake_cupti::Fakes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

/// Bytes of a buffer: a few kernels, so that sessions fill several.
const BUFFER: usize = 4096;

/// The stand-ins, with the driver's loaded into this process.
fn fakes() -> (&'static Fakes, Driver) {
    static FAKES: OnceLock<Fakes> = OnceLock::new();
    let fakes = FAKES.get_or_init(|| {
        let fakes = Fakes::new().expect("a C compiler");
        Library::open(&fakes.driver()).expect("the driver");
        fakes
    });
    (fakes, Driver::loaded().expect("the driver is loaded"))
}

/// A CUPTI that does what the script says.
fn cupti(name: &str, major: u32, script: &str, absent: &[&str]) -> Result<Cupti, LoadError> {
    let (fakes, driver) = fakes();
    let path = fakes.cupti(name, major, script, absent).expect("a library");
    Cupti::open(Library::open(&path)?, driver)
}

type Launch = unsafe extern "C" fn(*const c_char, u64, u32, u64, u64);

/// What the stand-in has for tests.
fn launch(path: &Path) -> Launch {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the library is loaded, and its source gives the function this signature.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        let at = libc::dlsym(handle, c"fake_launch".as_ptr());
        assert!(!at.is_null());
        std::mem::transmute::<*mut c_void, Launch>(at)
    }
}

thread_local! {
    /// What was delivered to this thread, in order.
    static DELIVERED: RefCell<VecDeque<Vec<u64>>> = const { RefCell::new(VecDeque::new()) };
}

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, most: *mut usize) {
    let memory = Box::leak(Box::new([0_u64; BUFFER / 8]));
    // SAFETY: CUPTI passes places for its answers.
    unsafe {
        *buffer = memory.as_mut_ptr().cast();
        *size = BUFFER;
        *most = 0;
    }
}

unsafe extern "C" fn completed(
    _context: *mut c_void,
    _stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    // SAFETY: the buffer is one of the above, and is this side's again.
    let words = unsafe { std::slice::from_raw_parts(buffer.cast::<u64>(), valid.div_ceil(8)) };
    let mut words = words.to_vec();
    // How much of it is filled goes first.
    words.insert(0, valid as u64);
    DELIVERED.with_borrow_mut(|all| all.push_back(words));
}

unsafe extern "C" fn told(_user: *mut c_void, _domain: u32, _cbid: u32, _data: *const c_void) {}

/// Runs a session and returns the buffers that it filled.
fn session(
    cupti: &Cupti,
    kinds: &[Kind],
    work: impl Fn(Launch),
) -> Result<Vec<Vec<u8>>, CuptiError> {
    // SAFETY: the functions do not unwind and outlive the process's last call.
    let subscriber = unsafe { cupti.subscribe(told, std::ptr::null_mut())? };
    cupti.use_system_thread_ids()?;
    cupti.set_flag(Attribute::ZEROED_OUT_ACTIVITY_BUFFER, 1)?;
    cupti.set_flag(Attribute::PER_THREAD_ACTIVITY_BUFFER, 1)?;
    cupti.set_size(Attribute::DEVICE_BUFFER_POOL_LIMIT, 64)?;
    // SAFETY: as above.
    unsafe { cupti.register_buffers(requested, completed)? };
    for kind in kinds {
        cupti.enable(*kind)?;
    }
    work(launch(cupti.path()));
    cupti.flush(Flush::Completed)?;
    for kind in kinds {
        cupti.disable(*kind)?;
    }
    cupti.flush(Flush::Forced)?;
    cupti.unsubscribe(subscriber)?;
    let bytes = |words: Vec<u64>| {
        let filled = usize::try_from(words[0]).expect("a size");
        let bytes = words[1..].iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(filled).collect()
    };
    Ok(DELIVERED.take().into_iter().map(bytes).collect())
}

fn launched(launch: Launch, name: &CStr, graph: u32, nodes: u64, bytes: u64) {
    // SAFETY: the name outlives the session.
    unsafe { launch(name.as_ptr(), 1500, graph, nodes, bytes) };
}

fn read<'a>(buffers: &'a [Vec<u8>], strides: &'a Strides) -> Vec<Result<Record<'a>, Damage>> {
    let records = |buffer: &'a Vec<u8>| Records::new(buffer, strides);
    buffers.iter().flat_map(records).collect()
}

fn kernels<'a>(records: &[Result<Record<'a>, Damage>]) -> Vec<Kernel<'a>> {
    let whole = records.iter().filter_map(|record| record.ok());
    whole.filter_map(Kernel::of).collect()
}

#[test]
fn sessions_of_every_version_are_read() {
    let asks = "cuptiActivityGetStructSize";
    let versions = [
        18, 20, 21, 22, 24, 26, 28, 130_001, 130_101, 130_202, 130_301, 130_401,
    ];
    for version in versions {
        let absent: &[&str] = if version < 130_200 { &[asks] } else { &[] };
        let major = Version(version).cuda_major();
        let name = format!("every-{version}");
        let cupti = cupti(&name, major, &format!("version={version}\n"), absent).expect("CUPTI");
        assert_eq!(cupti.version(), Version(version));
        let strides = Strides::learn(&cupti).expect("sizes");
        assert_eq!(strides, Strides::of(Version(version)), "{version}");
        let kinds = [Kind::CONCURRENT_KERNEL, Kind::MEMCPY, Kind::DRIVER];
        let before = cupti.timestamp().expect("a clock");
        let buffers = session(&cupti, &kinds, |launch| {
            for _ in 0..30 {
                launched(launch, c"alone", 0, 0, 0);
            }
            launched(launch, c"node", 9, 25, 0);
            launched(launch, c"", 0, 0, 4096);
        });
        let buffers = buffers.expect("a session");
        assert!(buffers.len() > 2, "{version}: {}", buffers.len());
        holds(&read(&buffers, &strides), before);
        assert_eq!(cupti.dropped(), Ok(0));
    }
}

/// What the session above recorded is all there, and says what it should.
fn holds(records: &[Result<Record<'_>, Damage>], before: u64) {
    let kernels = kernels(records);
    assert_eq!(kernels.len(), 55);
    for (index, kernel) in kernels.iter().enumerate() {
        assert!(kernel.start() >= before && kernel.end() == kernel.start() + 1500);
        assert_eq!(
            (kernel.device(), kernel.context(), kernel.stream()),
            (0, 1, 7)
        );
        assert_eq!(
            (kernel.grid_x(), kernel.grid_y(), kernel.grid_z()),
            (4, 1, 1)
        );
        assert_eq!((kernel.block_x(), kernel.registers()), (128, 32));
        assert_eq!((kernel.static_shared(), kernel.dynamic_shared()), (0, 1024));
        assert_eq!(kernel.cluster_x(), Some(0));
        // SAFETY: it is a name of this process's.
        let name = unsafe { CStr::from_ptr(kernel.name() as *const c_char) };
        let (graph, node) = (kernel.graph(), kernel.graph_node());
        match index {
            0..30 => assert_eq!((name, graph, node), (c"alone", 0, 0)),
            _ => assert_eq!((name, graph, node), (c"node", 9, index as u64 - 29)),
        }
    }
    // All nodes of a launch have its correlation.
    let correlation = |kernel: &Kernel<'_>| kernel.correlation();
    assert!(
        kernels[30..]
            .iter()
            .map(correlation)
            .all(|one| one == kernels[30].correlation())
    );
    let whole = || records.iter().map(|record| record.expect("whole"));
    let copies: Vec<Memcpy<'_>> = whole().filter_map(Memcpy::of).collect();
    assert_eq!(copies.len(), 1);
    assert_eq!((copies[0].bytes(), copies[0].copy_kind()), (4096, 1));
    let calls: Vec<Call<'_>> = whole().filter_map(Call::of).collect();
    assert_eq!(calls.len(), 32);
    assert!(calls[..30].iter().all(|call| call.cbid() == 307));
    assert_eq!(calls[31].correlation(), copies[0].correlation());
}

#[test]
fn a_library_that_is_not_what_its_version_says_is_not_used() {
    let cupti = cupti("disagrees", 12, "version=24\ntold_stride=216\n", &[]).expect("CUPTI");
    let error = Strides::learn(&cupti).unwrap_err();
    assert_eq!(
        error,
        StrideError::Disagree {
            kind: Kind::CONCURRENT_KERNEL,
            version: Version(24),
            told: 216,
            expected: 208,
        }
    );
}

#[test]
fn of_a_newer_version_sizes_are_asked_for_and_must_make_sense() {
    let newer = cupti("newer", 13, "version=140000\n", &[]).expect("CUPTI");
    let strides = Strides::learn(&newer).expect("sizes");
    assert_eq!(strides.get(Kind::CONCURRENT_KERNEL), Some(248));
    let absurd = cupti("absurd", 13, "version=140000\ntold_stride=100\n", &[]).expect("CUPTI");
    let error = Strides::learn(&absurd).unwrap_err();
    assert!(
        matches!(error, StrideError::Absurd { told: 100, .. }),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_told_all_at_once() {
    let absent = ["cuptiSubscribe", "cuptiActivityFlushAll"];
    let error = cupti("incomplete", 12, "", &absent).unwrap_err();
    let LoadError::Incomplete { missing, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(missing, &absent);
    assert!(
        error
            .to_string()
            .contains("lacks cuptiSubscribe, cuptiActivityFlushAll")
    );
}

#[test]
fn calls_that_a_version_lacks_are_told_apart_from_calls_that_fail() {
    let absent = [
        "cuptiActivityEnableRuntimeApi",
        "cuptiActivityEnableDriverApi",
    ];
    let lacks = cupti("lacks", 12, "version=22\n", &absent).expect("CUPTI");
    let one = cbid::DRIVER_LAUNCHES[0];
    assert_eq!(lacks.enable_call(Domain::DRIVER, one, true), None);
    let has = cupti("has", 12, "version=24\n", &[]).expect("CUPTI");
    assert_eq!(has.enable_call(Domain::DRIVER, one, true), Some(Ok(())));
    assert_eq!(has.enable_call(Domain::STATE, one, true), None);
    let refuses = cupti("refuses", 12, "refuse=27\n", &[]).expect("CUPTI");
    let error = refuses.enable(Kind::CONCURRENT_KERNEL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`cuptiActivityEnable` answered 27 (NOT_SUPPORTED)"
    );
    let unknown = refuses.enable(Kind(63)).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "`cuptiActivityEnable` answered 21 (INVALID_KIND)"
    );
}

#[test]
fn what_is_too_old_is_not_used() {
    let error = cupti("old", 12, "version=17\n", &[]).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::TooOld {
                version: Version(17),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_subscription_that_another_tool_holds_is_left_to_it() {
    let taken = cupti("taken", 12, "taken=1\n", &[]).expect("CUPTI");
    // To go on and register buffers would end the process.
    let error = session(&taken, &[Kind::CONCURRENT_KERNEL], |_| ()).unwrap_err();
    assert!(error.is_taken(), "{error}");
    let ours = cupti("ours", 12, "", &[]).expect("CUPTI");
    // SAFETY: the function does not unwind.
    let first = unsafe { ours.subscribe(told, std::ptr::null_mut()) }.expect("free");
    // SAFETY: as above.
    let second = unsafe { ours.subscribe(told, std::ptr::null_mut()) };
    assert!(second.is_err_and(|error| error.is_taken()));
    assert_eq!(ours.unsubscribe(first), Ok(()));
}

#[test]
fn what_a_buffer_cannot_tell_is_lost_and_counted() {
    let cupti = cupti("damaged", 12, "cut=100\ndrops=3\n", &[]).expect("CUPTI");
    let strides = Strides::learn(&cupti).expect("sizes");
    let five = |launch: Launch| (0..5).for_each(|_| launched(launch, c"alone", 0, 0, 0));
    let buffers = session(&cupti, &[Kind::CONCURRENT_KERNEL], five).expect("a session");
    let records = read(&buffers, &strides);
    assert_eq!(kernels(&records).len(), 4);
    let cut = Damage::Cut {
        at: 4 * 208,
        left: 108,
    };
    assert_eq!(records.last(), Some(&Err(cut)));
    assert_eq!(cupti.dropped(), Ok(3));
}

#[test]
fn kinds_that_nobody_knows_end_a_buffer_and_no_more() {
    let cupti = cupti("foreign", 12, "foreign=2\n", &[]).expect("CUPTI");
    let strides = Strides::learn(&cupti).expect("sizes");
    let many = |launch: Launch| (0..40).for_each(|_| launched(launch, c"alone", 0, 0, 0));
    let buffers = session(&cupti, &[Kind::CONCURRENT_KERNEL], many).expect("a session");
    let records = read(&buffers, &strides);
    let damaged: Vec<_> = records.iter().filter(|record| record.is_err()).collect();
    assert_eq!(damaged.len(), 1);
    // The first buffer holds 19 kernels beside the stranger; two of them are read, and all of the others.
    assert_eq!(kernels(&records).len(), 2 + 21);
}

#[test]
fn instants_that_make_no_sense_are_handed_on_as_they_are() {
    let cupti = cupti(
        "times",
        12,
        "zero_times=3\nbackwards=5\nunfinished=1\n",
        &[],
    )
    .expect("CUPTI");
    let strides = Strides::learn(&cupti).expect("sizes");
    let ten = |launch: Launch| (0..10).for_each(|_| launched(launch, c"alone", 0, 0, 0));
    let buffers = session(&cupti, &[Kind::CONCURRENT_KERNEL], ten).expect("a session");
    let records = read(&buffers, &strides);
    let kernels = kernels(&records);
    let count = |is: fn(&Kernel<'_>) -> bool| kernels.iter().filter(|kernel| is(kernel)).count();
    assert_eq!(kernels.len(), 11);
    assert_eq!(count(|kernel| kernel.start() == 0 && kernel.end() == 0), 3);
    assert_eq!(
        count(|kernel| kernel.end() != 0 && kernel.end() < kernel.start()),
        2
    );
    assert_eq!(count(|kernel| kernel.start() != 0 && kernel.end() == 0), 1);
}

#[test]
fn the_one_that_is_loaded_is_the_one_that_is_found() {
    let (fakes, driver) = fakes();
    assert_eq!(driver.cuda_major(), Some(13));
    let path = fakes.cupti("found", 12, "", &[]).expect("a library");
    let mut around = find::Surroundings::of_this_process(Some(driver));
    let is_ours = |mapped: &std::path::PathBuf| *mapped == path;
    assert!(!around.mapped.iter().any(is_ours));
    Library::open(&path).expect("loaded");
    around = find::Surroundings::of_this_process(Some(driver));
    assert!(around.mapped.iter().any(is_ours));
    // Other tests load theirs into this process, too.
    around.mapped.retain(is_ours);
    let library = find::find(&around).expect("found");
    assert_eq!(library.path(), path);
    assert!(Cupti::open(library, driver).is_ok());
}
