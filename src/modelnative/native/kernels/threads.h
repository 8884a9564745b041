// Threads that share the work of one kernel call.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

// Threads that wait for work, for as long as the process lives. Only one caller at a time has them; others do without.
class Workers {
    using Part = std::function<void(int64_t)>;
    static constexpr int LOOKS = 2000;  // for the next work, before a thread goes to sleep; some 50 microseconds
    std::mutex owner, door;
    std::condition_variable bell;
    const Part* part = nullptr;
    int64_t parts = 0, seats = 0, hired = 0;
    std::atomic<int64_t> next{0}, active{0}, turn{0};

    void run(const Part& part) {
        for (int64_t k; (k = next++) < parts;) part(k);
    }

    void wait() {
        for (int64_t seen = 0;;) {
            for (int look = 0; look < LOOKS && turn == seen; look++) pause();
            const Part* mine = nullptr;
            {
                std::unique_lock<std::mutex> lock(door);
                bell.wait(lock, [&] { return turn != seen; });
                seen = turn;
                if (part && seats > 0) seats--, active++, mine = part;
            }
            if (mine) run(*mine), active--;
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        std::this_thread::yield();
#endif
    }

  public:
    // Calls `each` with 0 to count - 1, on so many threads at most, the caller's among them.
    void share(int64_t count, int64_t threads, const Part& each) {
        threads = std::min(threads, count);
        if (threads < 2 || !owner.try_lock()) {
            for (int64_t k = 0; k < count; k++) each(k);
            return;
        }
        for (; hired < threads - 1; hired++) std::thread([this] { wait(); }).detach();
        {
            std::lock_guard<std::mutex> lock(door);
            part = &each, parts = count, seats = threads - 1, next = 0, turn++;
        }
        bell.notify_all();
        run(each);
        {
            std::lock_guard<std::mutex> lock(door);
            part = nullptr;
        }
        while (active) pause();
        owner.unlock();
    }
};

inline Workers& workers() {
    static Workers* const one = new Workers;  // never deleted: its threads may outlive main
    return *one;
}
