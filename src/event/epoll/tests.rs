use super::*;
use crate::eventfd;
use vfs::{IoSink, IoSource};

fn cred() -> KArc<Credentials> {
    KArc::try_new(Credentials::root()).unwrap()
}
fn event(count: u32) -> KArc<OpenFile> {
    eventfd::create(count, g::EFD_NONBLOCK, &cred()).unwrap()
}
fn new() -> KArc<OpenFile> {
    MAX_WATCHES.set(100_000).unwrap();
    create(0, &cred()).unwrap()
}
/// For tests that put epolls into epolls: one at a time, for who waits for the lock on the nesting
/// must be a thread of the scheduler.
fn nesting() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}
fn put(f: &OpenFile) {
    f.write(&mut IoSource::kernel(&1u64.to_ne_bytes()), u64::MAX).unwrap();
}
fn take(f: &OpenFile) {
    f.read(&mut IoSink::kernel(&mut [0; 8])).unwrap();
}
fn add(ep: &OpenFile, fd: u32, f: &KArc<OpenFile>, events: u32) -> Result {
    control(ep, g::EPOLL_CTL_ADD, fd, f, Event { events, data: fd.into() })
}
/// What a wait reports now: data and events.
fn reported(ep: &OpenFile, max: usize) -> Vec<(u64, u32)> {
    let mut all = vec![];
    let out = |_, e: Event| {
        all.push((e.data, e.events));
        Ok(())
    };
    epoll(ep).unwrap().deliver(max, out).unwrap();
    all
}

#[test]
fn level_triggered_items_are_reported_until_they_have_nothing() {
    let (ep, f) = (new(), event(0));
    add(&ep, 3, &f, g::EPOLLIN).unwrap();
    assert_eq!(reported(&ep, 9), []);
    put(&f);
    assert_eq!(reported(&ep, 9), [(3, g::EPOLLIN)]);
    assert_eq!(reported(&ep, 9), [(3, g::EPOLLIN)]);
    take(&f);
    assert_eq!(reported(&ep, 9), []);
    assert!(!epoll(&ep).unwrap().has_ready());
}

#[test]
fn edge_triggered_items_are_reported_once_a_change() {
    let (ep, f) = (new(), event(1));
    add(&ep, 3, &f, g::EPOLLIN | g::EPOLLET).unwrap();
    assert_eq!(reported(&ep, 9).len(), 1);
    assert_eq!(reported(&ep, 9).len(), 0);
    put(&f);
    assert_eq!(reported(&ep, 9).len(), 1);
}

#[test]
fn one_shot_items_wait_for_a_modification() {
    let (ep, f) = (new(), event(1));
    add(&ep, 3, &f, g::EPOLLIN | g::EPOLLONESHOT).unwrap();
    assert_eq!(reported(&ep, 9).len(), 1);
    put(&f);
    assert_eq!(reported(&ep, 9), []);
    control(&ep, g::EPOLL_CTL_MOD, 3, &f, Event { events: g::EPOLLIN, data: 8 }).unwrap();
    assert_eq!(reported(&ep, 9), [(8, g::EPOLLIN)]);
}

#[test]
fn items_take_turns_when_there_is_room_for_few() {
    let ep = new();
    let files: Vec<_> = (0..4).map(|i| (i, event(1))).collect();
    for (i, f) in &files {
        add(&ep, *i, f, g::EPOLLIN).unwrap();
    }
    let data = |v: Vec<(u64, u32)>| v.into_iter().map(|(d, _)| d).collect::<Vec<_>>();
    assert_eq!(data(reported(&ep, 3)), [0, 1, 2]);
    assert_eq!(data(reported(&ep, 3)), [3, 0, 1]);
}

#[test]
fn a_failed_report_is_made_again() {
    let (ep, f) = (new(), event(1));
    add(&ep, 3, &f, g::EPOLLIN | g::EPOLLET).unwrap();
    assert_eq!(epoll(&ep).unwrap().deliver(9, |_, _| Err(Errno::EFAULT)), Err(Errno::EFAULT));
    assert_eq!(reported(&ep, 9).len(), 1);
}

#[test]
fn the_close_of_a_file_ends_its_watch_and_nothing_is_kept() {
    let (ep, f) = (new(), event(1));
    add(&ep, 3, &f, g::EPOLLIN).unwrap();
    add(&ep, 4, &f, g::EPOLLIN).unwrap();
    assert_eq!(add(&ep, 4, &f, g::EPOLLIN), Err(Errno::EEXIST));
    drop(f);
    assert_eq!(reported(&ep, 9), []);
    let inner = epoll(&ep).unwrap().clone();
    assert!(inner.items.lock().all.is_empty());
    drop(ep);
    assert_eq!(KArc::strong_count(&inner), 1, "no item holds the epoll");
}

#[test]
fn closing_the_epoll_lets_go_of_everything() {
    let (ep, f) = (new(), event(1));
    add(&ep, 3, &f, g::EPOLLIN).unwrap();
    let inner = epoll(&ep).unwrap().clone();
    drop(ep);
    assert_eq!(KArc::strong_count(&inner), 1);
    put(&f);
    assert!(!inner.has_ready(), "its callbacks are gone");
}

#[test]
fn circles_and_long_rows_are_eloop() {
    let _one = nesting();
    let eps: Vec<_> = (0..7).map(|_| new()).collect();
    let watch = |outer: usize, inner: usize| add(&eps[outer], inner as u32, &eps[inner], g::EPOLLIN);
    assert_eq!(add(&eps[0], 0, &eps[0], g::EPOLLIN), Err(Errno::EINVAL));
    watch(0, 1).unwrap();
    assert_eq!(watch(1, 0), Err(Errno::ELOOP));
    watch(1, 2).unwrap();
    assert_eq!(watch(2, 0), Err(Errno::ELOOP));
    watch(3, 4).unwrap();
    // From the outside in as well as from the inside out.
    watch(2, 3).unwrap();
    assert_eq!(watch(4, 5), Err(Errno::ELOOP));
    assert_eq!(watch(6, 0), Err(Errno::ELOOP));
    control(&eps[0], g::EPOLL_CTL_DEL, 1, &eps[1], Event::default()).unwrap();
    watch(4, 5).unwrap();
}

#[test]
fn an_epoll_in_an_epoll_is_readable_when_its_files_are() {
    let _one = nesting();
    let (outer, inner, f) = (new(), new(), event(0));
    add(&outer, 1, &inner, g::EPOLLIN).unwrap();
    add(&inner, 2, &f, g::EPOLLIN).unwrap();
    assert_eq!(reported(&outer, 9), []);
    put(&f);
    assert_eq!(reported(&outer, 9), [(1, g::EPOLLIN)]);
    assert_eq!(inner.poll(&mut PollTable::look()), PollEvents::READABLE);
    take(&f);
    assert_eq!(reported(&outer, 9), []);
    assert_eq!(inner.poll(&mut PollTable::look()), PollEvents::empty());
}

#[test]
fn a_failed_addition_leaves_nothing() {
    let (ep, f) = (new(), event(1));
    for n in 1..40 {
        kalloc::fail_nth(n);
        let done = add(&ep, 3, &f, g::EPOLLIN);
        let failed = !kalloc::disarm();
        assert_eq!(done.is_err(), failed, "{n}");
        if !failed {
            break;
        }
        assert!(epoll(&ep).unwrap().items.lock().all.is_empty());
        assert_eq!(reported(&ep, 9), []);
        put(&f);
    }
    assert_eq!(reported(&ep, 9).len(), 1);
}

/// Adds `n` new epolls that watch `inner`; how many it took until one was refused.
fn watch_by(inner: &KArc<OpenFile>, n: usize, all: &mut Vec<KArc<OpenFile>>) -> usize {
    for i in 0..n {
        let outer = new();
        match add(&outer, i as u32, inner, g::EPOLLIN) {
            Ok(()) => all.push(outer),
            Err(e) => {
                assert_eq!(e, Errno::EINVAL);
                assert!(epoll(&outer).unwrap().items.lock().all.is_empty());
                return i;
            }
        }
    }
    n
}

#[test]
fn the_ways_up_from_a_file_are_counted_by_their_length() {
    let _one = nesting();
    let (inner, f, mut all) = (new(), event(0), vec![]);
    // Without a file nothing is woken.
    assert_eq!(watch_by(&inner, 501, &mut all), 501);
    assert_eq!(add(&inner, 1, &f, g::EPOLLIN), Err(Errno::EINVAL));
    all.pop();
    add(&inner, 1, &f, g::EPOLLIN).unwrap();
    assert_eq!(watch_by(&inner, 1, &mut all), 0);
    // A file itself is watched by any number.
    let (g, mut plain) = (event(0), vec![]);
    assert_eq!(watch_by(&g, 600, &mut plain), 600);
}

#[test]
fn what_each_layer_adds_multiplies() {
    let _one = nesting();
    let (inner, f, mut all) = (new(), event(0), vec![]);
    add(&inner, 1, &f, g::EPOLLIN).unwrap();
    let mut layer = vec![];
    assert_eq!(watch_by(&inner, 20, &mut layer), 20);
    let mut taken = 0;
    for middle in &layer {
        taken += watch_by(middle, 10, &mut all);
    }
    assert_eq!(taken, 100);
    put(&f);
    assert_eq!(reported(all.last().unwrap(), 9).len(), 1);
}
