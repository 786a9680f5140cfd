#define BOOST_TEST_MODULE virtio
#include <boost/test/unit_test.hpp>
