#include "guests/ring3/task.h"

namespace splitvisor::ring3 {

void run_program(const Task& task)
{
    switch (task.parameters.program) {
    case Program::kTouch: return run_touch(task);
    case Program::kWordCount: return run_word_count(task);
    case Program::kKeyValue: return run_key_value(task);
    case Program::kSort: return run_sort(task);
    case Program::kTrain: return run_train(task);
    }
}

}  // namespace splitvisor::ring3
