//! Users and groups.

use crate::check::*;
use libc::*;

cases![ids:
    root_at_the_start, setuid_by_root_sets_all, setuid_by_user_is_eperm, saved_id_comes_back, setresuid_keeps_minus_one,
    setreuid_rules, groups_set_and_read, groups_need_rights, supplementary_group_grants, fsuid_follows, impossible_ids_change_nothing, ids_are_inherited,
    dropping_rights_is_final, signals_follow_ids,
];

fn ids() -> (u32, u32, u32) {
    let (mut real, mut effective, mut saved) = (9, 9, 9);
    // SAFETY: three live numbers.
    unsafe { getresuid(&mut real, &mut effective, &mut saved) };
    (real, effective, saved)
}

fn root_at_the_start() -> Outcome {
    eq!(ids(), (0, 0, 0));
    unsafe {
        eq!((getuid(), geteuid(), getgid(), getegid()), (0, 0, 0, 0));
    }
    Ok(())
}

fn setuid_by_root_sets_all() -> Outcome {
    in_child(|| {
        ok!(setuid(5));
        eq!(ids(), (5, 5, 5));
        Ok(())
    })
}

fn setuid_by_user_is_eperm() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(setuid(0), EPERM);
        errno!(setresuid(5, 6, 5), EPERM);
        errno!(setgid(7), EPERM);
        ok!(setuid(5));
        eq!(ids(), (5, 5, 5));
        Ok(())
    })
}

fn saved_id_comes_back() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 6, 0));
        eq!(ids(), (5, 6, 0));
        ok!(setresuid(u32::MAX, 0, u32::MAX));
        eq!(ids(), (5, 0, 0));
        Ok(())
    })
}

fn setresuid_keeps_minus_one() -> Outcome {
    in_child(|| {
        ok!(setresuid(u32::MAX, 7, u32::MAX));
        eq!(ids(), (0, 7, 0));
        ok!(setresgid(1, 2, 3));
        let (mut real, mut effective, mut saved) = (9, 9, 9);
        ok!(getresgid(&mut real, &mut effective, &mut saved));
        eq!((real, effective, saved), (0, 0, 0));
        Ok(())
    })
    .map_or_else(
        // The last step may not work: effective user 7 has no right to change groups.
        |stop| match stop {
            Stop::Fail(text) if text.contains("Operation not permitted") => Ok(()),
            other => Err(other),
        },
        |()| fail!("setresgid worked without rights"),
    )
}

fn setreuid_rules() -> Outcome {
    in_child(|| {
        ok!(setreuid(5, 6));
        // The saved id follows the effective one when the real one was set.
        eq!(ids(), (5, 6, 6));
        ok!(setreuid(6, 5));
        eq!(ids(), (6, 5, 5));
        errno!(setreuid(0, u32::MAX), EPERM);
        Ok(())
    })
}

fn groups_set_and_read() -> Outcome {
    in_child(|| {
        let want = [3, 1, 2];
        ok!(setgroups(3, want.as_ptr()));
        eq!(ok!(getgroups(0, std::ptr::null_mut())), 3);
        let mut have = [0; 5];
        eq!(ok!(getgroups(5, have.as_mut_ptr())), 3);
        have[..3].sort_unstable();
        eq!(have, [1, 2, 3, 0, 0]);
        errno!(getgroups(2, have.as_mut_ptr()), EINVAL);
        errno!(setgroups(65537, want.as_ptr()), EINVAL);
        Ok(())
    })
}

fn groups_need_rights() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(setgroups(0, std::ptr::null()), EPERM);
        Ok(())
    })
}

fn supplementary_group_grants() -> Outcome {
    make("f", b"x")?;
    ok!(chown(c"f".as_ptr(), 0, 77));
    ok!(chmod(c"f".as_ptr(), 0o040));
    for (group, allowed) in [(77, true), (78, false)] {
        in_child(|| {
            ok!(setgroups(1, &group));
            ok!(setresgid(5, 5, 5));
            ok!(setresuid(5, 5, 5));
            eq!(open_file("f", O_RDONLY, 0) >= 0, allowed);
            Ok(())
        })?;
    }
    Ok(())
}

fn fsuid_follows() -> Outcome {
    in_child(|| {
        ok!(setresuid(u32::MAX, 5, u32::MAX));
        eq!(unsafe { setfsuid(u32::MAX) }, 5);
        close_fd(ok!(open_file("/tmp/linnet-tests-by-5", O_CREAT | O_RDWR, 0o600)));
        let owner = stat_of("/tmp/linnet-tests-by-5")?.st_uid;
        ok!(unlink(c"/tmp/linnet-tests-by-5".as_ptr()));
        eq!(owner, 5);
        Ok(())
    })
}

fn impossible_ids_change_nothing() -> Outcome {
    in_child(|| {
        // SAFETY: plain calls.
        let ask = || unsafe { (setfsuid(u32::MAX), setfsgid(u32::MAX)) };
        eq!((ask(), ask()), ((0, 0), (0, 0)));
        eq!(unsafe { setfsuid(7) }, 0);
        eq!((ask(), ask()), ((7, 0), (7, 0)));
        errno!(setgroups(2, [5, u32::MAX].as_ptr()), EINVAL);
        Ok(())
    })
}

fn ids_are_inherited() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 6, 7));
        eq!(child(|| (ids() != (5, 6, 7)) as i32), Status::Exited(0));
        Ok(())
    })
}

fn dropping_rights_is_final() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(setresuid(0, 0, 0), EPERM);
        errno!(chroot(c"/".as_ptr()), EPERM);
        errno!(mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()), EPERM);
        errno!(sethostname(c"x".as_ptr(), 1), EPERM);
        errno!(reboot(RB_DISABLE_CAD), EPERM);
        Ok(())
    })
}

fn signals_follow_ids() -> Outcome {
    let root = fork_child(|| loop {
        unsafe { pause() };
    });
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(kill(root, SIGTERM), EPERM);
        Ok(())
    })?;
    ok!(kill(root, SIGKILL));
    eq!(wait_for(root), Status::Killed(SIGKILL));
    Ok(())
}
