// Attention of packed tokens over the arena: what Python calls. Tokens that share a beginning read it
// together; what they have from it is where their own task goes on.
#include "worker.h"

namespace penstock {

constexpr int64_t SMALL = 20000;  // cost below which waking threads takes longer

template <typename T>
static void attend(const Plan& plan, const Call& call) {
  static thread_local Array<float> states;
  const int64_t size = Worker<T>::state_size(call) * plan.heads * plan.group;
  float* saved = plan.states ? states.of(plan.states * size) : nullptr;
  const int shared = int(plan.shared.size()), own = int(plan.tasks.size());
#pragma omp parallel num_threads(plan.threads) if (plan.cost > SMALL)
  {
    static thread_local Memory memory;
    Worker<T> worker(plan, call, saved, memory);
#pragma omp for schedule(dynamic, 1)
    for (int i = 0; i < shared; i++) worker.run(plan.shared, i);
#pragma omp for schedule(dynamic, 1)
    for (int i = 0; i < own; i++) worker.run(plan.tasks, i);
  }
}

}  // namespace penstock

extern "C" {

void* penstock_plan(const penstock::Layout* layout, int heads, int group, int threads) {
  return new penstock::Plan(*layout, heads, group, threads);
}

void penstock_free_plan(void* plan) { delete static_cast<penstock::Plan*>(plan); }

// Not 0: the layout reads behind the arena.
int penstock_attend(const void* plan, const penstock::Call* call) {
  const penstock::Plan& steps = *static_cast<const penstock::Plan*>(plan);
  if (steps.last_position >= call->positions) return 1;
  call->bf16 ? penstock::attend<uint16_t>(steps, *call) : penstock::attend<float>(steps, *call);
  return 0;
}
}
