// The header in C++: twice, with names of C, and handles in smart pointers.
#include "leanresnet.h"
#include "leanresnet.h"

#include <cstdio>
#include <memory>
#include <vector>

namespace {

struct Release {
  void operator()(leanresnet_model *model) const { leanresnet_model_free(model); }
  void operator()(leanresnet_session *session) const { leanresnet_session_free(session); }
};

}  // namespace

int main(int argument_count, char **arguments) {
  if (argument_count != 2) return LEANRESNET_STATUS_USAGE;
  leanresnet_error error;
  leanresnet_model *loaded = nullptr;
  leanresnet_status status = leanresnet_model_load(arguments[1], &loaded, &error);
  std::unique_ptr<leanresnet_model, Release> model(loaded);
  leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
  options.threads = 1;
  leanresnet_session *created = nullptr;
  if (status == LEANRESNET_STATUS_OK) status = leanresnet_session_create(model.get(), &options, &created, &error);
  std::unique_ptr<leanresnet_session, Release> session(created);
  std::size_t channels = 0, height = 0, width = 0, classes = 0;
  leanresnet_model_input(model.get(), &channels, &height, &width);
  leanresnet_model_classes(model.get(), &classes);
  std::vector<float> image(channels * height * width), logits(classes);
  if (status == LEANRESNET_STATUS_OK) {
    status = leanresnet_session_run_f32(session.get(), 1, image.data(), image.size(), LEANRESNET_LAYOUT_NCHW, logits.data(),
                                        logits.size(), &error);
  }
  if (status != LEANRESNET_STATUS_OK) std::fprintf(stderr, "%s\n", error.message);
  return status;
}
