//! The one place where C is spoken: libvirt's library, loaded at run time, behind calls that are safe to use.
//!
//! In: plain values. Out: owned plain values. What libvirt hands out is freed here: strings by `free`, domains by
//! `virDomainFree`, statistics by `virDomainStatsRecordListFree`. No pointer leaves this file.
//!
//! Only *types* and *constants* of `virt-sys` are used. Its functions are never named, so nothing links to libvirt
//! and the same binary runs where it is not installed.
#![allow(unsafe_code)] // each block says why it is sound

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uchar, c_uint, c_ulong, c_void},
    mem::ManuallyDrop,
    ptr,
    sync::Arc,
};

use libloading::Library;
use uuid::Uuid;
use virt_sys::{
    virConnectPtr, virDomainPtr, virDomainStatsRecordPtr, virErrorFunc, virErrorPtr, virNodeInfo, virTypedParameter,
};

/// The name under which every distribution ships the library (its ABI has not changed since 2005).
const LIBRARY: &str = "libvirt.so.0";

/// The statistics that one bulk call asks for.
const STATS: c_uint = virt_sys::VIR_DOMAIN_STATS_STATE
    | virt_sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | virt_sys::VIR_DOMAIN_STATS_BALLOON
    | virt_sys::VIR_DOMAIN_STATS_VCPU
    | virt_sys::VIR_DOMAIN_STATS_INTERFACE
    | virt_sys::VIR_DOMAIN_STATS_BLOCK
    | virt_sys::VIR_DOMAIN_STATS_PERF;

/// Undefining takes along what would otherwise keep libvirt from forgetting the domain.
const UNDEFINE: c_uint =
    UNDEFINE_SIMPLE | virt_sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | virt_sys::VIR_DOMAIN_UNDEFINE_NVRAM;

/// What drivers without checkpoints and firmware variables know.
const UNDEFINE_SIMPLE: c_uint =
    virt_sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | virt_sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;

/// A value of one statistic (`virTypedParameter`), owned.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TypedValue {
    /// `int` and `long long`.
    Signed(i64),
    /// `unsigned int` and `unsigned long long`.
    Unsigned(u64),
    /// `double`.
    Double(f64),
    /// `boolean`.
    Boolean(bool),
    /// `string`; what is not UTF-8 is replaced.
    Text(String),
}

/// One domain's answer in a bulk call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StatsRecord {
    /// Domain UUID.
    pub uuid: Uuid,
    /// Domain name.
    pub name: String,
    /// Number while it runs; `None` when it is off. A restart gives another.
    pub id: Option<u32>,
    /// Statistics by libvirt's names, as they came.
    pub values: Vec<(String, TypedValue)>,
}

/// What libvirt says of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeFacts {
    /// Host name.
    pub hostname: String,
    /// `QEMU`, `Test`.
    pub kind: String,
    /// major*1000000 + minor*1000 + release.
    pub version: u64,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in KiB.
    pub memory_kib: u64,
}

/// Libvirt's own error: its number (`virErrorNumber`) and words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LibvirtError {
    /// Number; 0 if libvirt gave none.
    pub code: u32,
    /// Words.
    pub message: String,
}

impl LibvirtError {
    /// The domain does not exist.
    pub(super) fn is_no_domain(&self) -> bool {
        self.code == virt_sys::VIR_ERR_NO_DOMAIN
    }

    /// The state of the domain does not allow it: running already, or off already.
    pub(super) fn is_operation_invalid(&self) -> bool {
        self.code == virt_sys::VIR_ERR_OPERATION_INVALID
    }
}

/// Declares the functions that are looked up in the library, with the signatures of libvirt 6.0's headers.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        #[allow(non_snake_case)] // the fields are named as the functions are
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)* }

        impl Functions {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                // Sound: the types are those of libvirt's public headers, which are stable.
                Ok(Self { $($name: unsafe { *library.get(concat!(stringify!($name), "\0").as_bytes())? },)* })
            }
        }
    };
}

functions! {
    virInitialize: fn() -> c_int;
    virSetErrorFunc: fn(*mut c_void, virErrorFunc);
    virGetLastError: fn() -> virErrorPtr;
    virConnectOpen: fn(*const c_char) -> virConnectPtr;
    virConnectClose: fn(virConnectPtr) -> c_int;
    virConnectIsAlive: fn(virConnectPtr) -> c_int;
    virConnectGetType: fn(virConnectPtr) -> *const c_char;
    virConnectGetVersion: fn(virConnectPtr, *mut c_ulong) -> c_int;
    virConnectGetHostname: fn(virConnectPtr) -> *mut c_char;
    virConnectGetDomainCapabilities: fn(virConnectPtr, *const c_char, *const c_char, *const c_char, *const c_char, c_uint) -> *mut c_char;
    virNodeGetInfo: fn(virConnectPtr, *mut virNodeInfo) -> c_int;
    virConnectGetAllDomainStats: fn(virConnectPtr, c_uint, *mut *mut virDomainStatsRecordPtr, c_uint) -> c_int;
    virDomainStatsRecordListFree: fn(*mut virDomainStatsRecordPtr);
    virDomainLookupByUUID: fn(virConnectPtr, *const c_uchar) -> virDomainPtr;
    virDomainDefineXML: fn(virConnectPtr, *const c_char) -> virDomainPtr;
    virDomainFree: fn(virDomainPtr) -> c_int;
    virDomainGetUUID: fn(virDomainPtr, *mut c_uchar) -> c_int;
    virDomainGetName: fn(virDomainPtr) -> *const c_char;
    virDomainGetID: fn(virDomainPtr) -> c_uint;
    virDomainGetXMLDesc: fn(virDomainPtr, c_uint) -> *mut c_char;
    virDomainGetState: fn(virDomainPtr, *mut c_int, *mut c_int, c_uint) -> c_int;
    virDomainCreate: fn(virDomainPtr) -> c_int;
    virDomainShutdown: fn(virDomainPtr) -> c_int;
    virDomainDestroy: fn(virDomainPtr) -> c_int;
    virDomainUndefineFlags: fn(virDomainPtr, c_uint) -> c_int;
}

/// The loaded library. Never unloaded: libvirt has threads and thread-local state of its own.
pub(super) struct Api {
    functions: Functions,
    _library: ManuallyDrop<Library>,
}

impl Api {
    /// Loads and initialises libvirt; `Err` with the loader's words if it is not installed.
    pub(super) fn load() -> Result<Arc<Self>, String> {
        // Sound: the library's initialisers are libvirt's; it is made to be loaded into any process.
        let library = unsafe { Library::new(LIBRARY) }.map_err(|e| e.to_string())?;
        let functions = Functions::find(&library).map_err(|e| e.to_string())?;
        let api = Self { functions, _library: ManuallyDrop::new(library) };
        // Sound: no arguments; may be called any number of times.
        if unsafe { (api.functions.virInitialize)() } < 0 {
            return Err(api.last_error().message);
        }
        // Sound: the handler ignores its arguments. Without one libvirt prints every error to stderr.
        unsafe { (api.functions.virSetErrorFunc)(ptr::null_mut(), Some(ignore_error)) };
        Ok(Arc::new(api))
    }

    /// The last error of this thread.
    fn last_error(&self) -> LibvirtError {
        // Sound: returns null, or a pointer that stays valid until this thread's next libvirt call; copied at once.
        unsafe {
            let error = (self.functions.virGetLastError)();
            if error.is_null() {
                return LibvirtError { code: 0, message: "libvirt gave no reason".to_owned() };
            }
            let code = u32::try_from((*error).code).unwrap_or(0);
            LibvirtError { code, message: text((*error).message).unwrap_or_else(|| format!("error {code}")) }
        }
    }

    fn check(&self, answer: c_int) -> Result<(), LibvirtError> {
        if answer < 0 { Err(self.last_error()) } else { Ok(()) }
    }
}

unsafe extern "C" fn ignore_error(_user: *mut c_void, _error: virErrorPtr) {}

/// A connection. It holds a raw pointer, so the compiler keeps it on the thread that opened it.
pub(super) struct Connection {
    api: Arc<Api>,
    pointer: virConnectPtr,
}

impl Connection {
    /// Opens `uri`; blocks.
    pub(super) fn open(api: &Arc<Api>, uri: &str) -> Result<Self, LibvirtError> {
        let uri = c_text(uri)?;
        // Sound: a NUL-terminated string that outlives the call.
        let pointer = unsafe { (api.functions.virConnectOpen)(uri.as_ptr()) };
        if pointer.is_null() { Err(api.last_error()) } else { Ok(Self { api: api.clone(), pointer }) }
    }

    /// Whether the connection still stands.
    pub(super) fn is_alive(&self) -> bool {
        // Sound: `pointer` is open as long as `self` lives.
        unsafe { (self.api.functions.virConnectIsAlive)(self.pointer) == 1 }
    }

    /// What libvirt says of the machine.
    pub(super) fn node(&self) -> Result<NodeFacts, LibvirtError> {
        let functions = &self.api.functions;
        // Sound: all zero bytes are a valid `virNodeInfo` (numbers and a character array).
        let mut info: virNodeInfo = unsafe { std::mem::zeroed() };
        // Sound: `pointer` is open, `info` outlives the call.
        self.api.check(unsafe { (functions.virNodeGetInfo)(self.pointer, &mut info) })?;
        let mut version: c_ulong = 0;
        // Sound: as above. The test driver and an unstarted QEMU may not know a version: then it is 0.
        let _ = unsafe { (functions.virConnectGetVersion)(self.pointer, &mut version) };
        // Sound: a static string, or null.
        let kind = unsafe { text((functions.virConnectGetType)(self.pointer)) };
        // Sound: a string that is ours to free, or null.
        let hostname = unsafe { owned_text((functions.virConnectGetHostname)(self.pointer)) };
        Ok(NodeFacts {
            hostname: hostname.ok_or_else(|| self.api.last_error())?,
            kind: kind.ok_or_else(|| self.api.last_error())?,
            #[allow(clippy::useless_conversion)] // c_ulong is 32 bits on some machines
            version: u64::from(version),
            cpus: info.cpus,
            #[allow(clippy::useless_conversion)] // the same
            memory_kib: u64::from(info.memory),
        })
    }

    /// Whether guests of this virtualisation type (`kvm`, `qemu`) can run here: libvirt asks QEMU itself.
    pub(super) fn supports(&self, kind: &str) -> bool {
        let Ok(kind) = c_text(kind) else { return false };
        let null = ptr::null();
        // Sound: null means "the default" for emulator, architecture and machine; the answer is ours to free.
        unsafe {
            let f = self.api.functions.virConnectGetDomainCapabilities;
            owned_text(f(self.pointer, null, null, null, kind.as_ptr(), 0)).is_some()
        }
    }

    /// All domains' statistics by one call. With `waits` false, a domain that is busy with another job answers
    /// only what needs no job, instead of holding up everyone.
    pub(super) fn all_stats(&self, waits: bool) -> Result<Vec<StatsRecord>, LibvirtError> {
        let flags = if waits { 0 } else { virt_sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT };
        let functions = &self.api.functions;
        let mut list: *mut virDomainStatsRecordPtr = ptr::null_mut();
        // Sound: `list` outlives the call; on success it is an array of `count` records that is ours to free.
        let count = unsafe { (functions.virConnectGetAllDomainStats)(self.pointer, STATS, &mut list, flags) };
        self.api.check(count)?;
        let count = usize::try_from(count).unwrap_or(0);
        // Sound: `count` records were just given; each is copied before the list is freed, exactly once.
        unsafe {
            let records = (0..count).map(|i| self.stats_record(*list.add(i))).collect();
            (functions.virDomainStatsRecordListFree)(list);
            Ok(records)
        }
    }

    /// Copies a record. Sound if `record` is one of a list that libvirt gave and that is not freed yet.
    unsafe fn stats_record(&self, record: virDomainStatsRecordPtr) -> StatsRecord {
        // Sound by the caller's promise: `dom` is a domain, `params` an array of `nparams`.
        unsafe {
            let (domain, params) = ((*record).dom, (*record).params);
            let count = usize::try_from((*record).nparams).unwrap_or(0);
            StatsRecord {
                uuid: domain_uuid(&self.api.functions, domain),
                name: text((self.api.functions.virDomainGetName)(domain)).unwrap_or_default(),
                id: domain_id(&self.api.functions, domain),
                values: (0..count).filter_map(|i| typed_value(&*params.add(i))).collect(),
            }
        }
    }

    /// The domain with this UUID.
    pub(super) fn domain(&self, uuid: Uuid) -> Result<Domain<'_>, LibvirtError> {
        // Sound: `pointer` is open; libvirt reads 16 bytes.
        let pointer = unsafe { (self.api.functions.virDomainLookupByUUID)(self.pointer, uuid.as_bytes().as_ptr()) };
        self.domain_from(pointer)
    }

    /// Defines a domain from XML; it is not started.
    pub(super) fn define(&self, xml: &str) -> Result<Domain<'_>, LibvirtError> {
        let xml = c_text(xml)?;
        // Sound: a NUL-terminated string that outlives the call.
        let pointer = unsafe { (self.api.functions.virDomainDefineXML)(self.pointer, xml.as_ptr()) };
        self.domain_from(pointer)
    }

    fn domain_from(&self, pointer: virDomainPtr) -> Result<Domain<'_>, LibvirtError> {
        if pointer.is_null() { Err(self.api.last_error()) } else { Ok(Domain { connection: self, pointer }) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Sound: opened by us, closed once; domains borrow the connection and are gone by now.
        unsafe { (self.api.functions.virConnectClose)(self.pointer) };
    }
}

/// A reference to a domain.
pub(super) struct Domain<'c> {
    connection: &'c Connection,
    pointer: virDomainPtr,
}

// Sound, for every call below: `pointer` is a reference that is ours until `drop`, and arguments outlive the calls.
impl Domain<'_> {
    fn functions(&self) -> &Functions {
        &self.connection.api.functions
    }

    /// Power state as libvirt's number.
    pub(super) fn state(&self) -> Result<i64, LibvirtError> {
        let mut state: c_int = 0;
        let answer = unsafe { (self.functions().virDomainGetState)(self.pointer, &mut state, ptr::null_mut(), 0) };
        self.connection.api.check(answer).map(|()| i64::from(state))
    }

    /// The domain's description as it runs now.
    pub(super) fn xml(&self) -> Result<String, LibvirtError> {
        unsafe { owned_text((self.functions().virDomainGetXMLDesc)(self.pointer, 0)) }
            .ok_or_else(|| self.connection.api.last_error())
    }

    /// Starts it.
    pub(super) fn start(&self) -> Result<(), LibvirtError> {
        self.connection.api.check(unsafe { (self.functions().virDomainCreate)(self.pointer) })
    }

    /// Asks it to shut down (ACPI); it may not listen.
    pub(super) fn shutdown(&self) -> Result<(), LibvirtError> {
        self.connection.api.check(unsafe { (self.functions().virDomainShutdown)(self.pointer) })
    }

    /// Pulls the plug.
    pub(super) fn destroy(&self) -> Result<(), LibvirtError> {
        self.connection.api.check(unsafe { (self.functions().virDomainDestroy)(self.pointer) })
    }

    /// Forgets it; it must be off.
    pub(super) fn undefine(&self) -> Result<(), LibvirtError> {
        let with = |flags| {
            self.connection.api.check(unsafe { (self.functions().virDomainUndefineFlags)(self.pointer, flags) })
        };
        match with(UNDEFINE) {
            Err(error) if error.code == virt_sys::VIR_ERR_INVALID_ARG => with(UNDEFINE_SIMPLE),
            other => other,
        }
    }
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        unsafe { (self.functions().virDomainFree)(self.pointer) };
    }
}

/// Sound if `domain` is alive.
unsafe fn domain_uuid(functions: &Functions, domain: virDomainPtr) -> Uuid {
    let mut bytes = [0u8; 16];
    // Sound: libvirt writes exactly VIR_UUID_BUFLEN = 16 bytes. It fails only for an invalid `domain`.
    unsafe { (functions.virDomainGetUUID)(domain, bytes.as_mut_ptr()) };
    Uuid::from_bytes(bytes)
}

/// Sound if `domain` is alive. Libvirt says (unsigned) -1 for a domain that is off.
unsafe fn domain_id(functions: &Functions, domain: virDomainPtr) -> Option<u32> {
    let id = unsafe { (functions.virDomainGetID)(domain) };
    (id != c_uint::MAX).then_some(id)
}

/// Copies one parameter; a type that libvirt 9 does not have is left out.
fn typed_value(parameter: &virTypedParameter) -> Option<(String, TypedValue)> {
    // Sound: the field is NUL-terminated within its 80 bytes, and `type_` says which member of the union is set.
    unsafe {
        let name = text(parameter.field.as_ptr())?;
        let value = &parameter.value;
        let value = match u32::try_from(parameter.type_).ok()? {
            virt_sys::VIR_TYPED_PARAM_INT => TypedValue::Signed(i64::from(value.i)),
            virt_sys::VIR_TYPED_PARAM_UINT => TypedValue::Unsigned(u64::from(value.ui)),
            virt_sys::VIR_TYPED_PARAM_LLONG => TypedValue::Signed(value.l),
            virt_sys::VIR_TYPED_PARAM_ULLONG => TypedValue::Unsigned(value.ul),
            virt_sys::VIR_TYPED_PARAM_DOUBLE => TypedValue::Double(value.d),
            virt_sys::VIR_TYPED_PARAM_BOOLEAN => TypedValue::Boolean(value.b != 0),
            virt_sys::VIR_TYPED_PARAM_STRING => TypedValue::Text(text(value.s)?),
            _ => return None,
        };
        Some((name, value))
    }
}

fn c_text(text: &str) -> Result<CString, LibvirtError> {
    CString::new(text).map_err(|_| LibvirtError { code: 0, message: "text with a NUL character".to_owned() })
}

/// Copies a C string. Sound if `pointer` is null or NUL-terminated.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// Copies a C string and frees it. Sound if `pointer` is null, or NUL-terminated and allocated by `malloc`.
unsafe fn owned_text(pointer: *mut c_char) -> Option<String> {
    let copy = unsafe { text(pointer) };
    // Sound by the caller's promise; `free(NULL)` does nothing.
    unsafe { libc::free(pointer.cast()) };
    copy
}
